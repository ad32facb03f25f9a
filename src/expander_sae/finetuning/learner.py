"""Fine-tuning: a copy of a trained dictionary learns, inside the language model, what its predictions need."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.harvest import TextConfig, origin_at
from expander_sae.activations.hookpoints import read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import Count, Decay, Positive, Seed, Share, Weight, check_fields
from expander_sae.coders import OMP, Candidates, OneShotCoder
from expander_sae.console import waiting
from expander_sae.distribution import Group
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.autoencoders import check_width
from expander_sae.evaluation.setting import Setting, text_for
from expander_sae.evaluation.text import Part, Passage, TextActivations
from expander_sae.finetuning.codes import check_coder, differentiable_residual
from expander_sae.finetuning.divergence import mean_losses
from expander_sae.interventions.replaced import PatchedModel
from expander_sae.means import check_memory, check_time
from expander_sae.training.checkpoints import FOLDER as CHECKPOINT
from expander_sae.training.checkpoints import SavedTensors, checkpoint_to_resume, has_checkpoint
from expander_sae.training.engine import FVU, Engine, Entry, Shown
from expander_sae.training.learner import Descent, learning_rate_rule
from expander_sae.training.metrics import METRICS, Mean, Numbers, last_measured
from expander_sae.training.schedule import check_schedule

SHARE_OF_TRAINING = 1 / 3
"""The default learning rate, as a share of the one that training takes."""
SHOWN = (Shown("KL", "kl", ".3f"), FVU)


@dataclass(frozen=True)
class FinetuneConfig:
    """How a trained dictionary is fine-tuned."""

    tokens: Count = 30_000
    """Tokens to learn from, drawn from all over the first 2 million of the text."""
    batch: Count = 1024
    """Tokens per step, padding included; at least as many as the context."""
    learning_rate: Positive | None = None
    """Adam's step size; by default a share of what training took for such a dictionary, see `default_learning_rate`."""
    fvu_weight: Weight = 16.0
    """What the fraction of variance unexplained counts beside the KL divergence, 0 for nothing."""
    warm_up: Share = 0.1
    """Share of the tokens over which the learning rate rises from zero."""
    decay: Share = 0.5
    """Share of the tokens, at the end, over which it falls to zero."""
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    """How long Adam remembers gradients and their squares."""
    clip: Positive = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    seed: Seed = 0
    """Of which pieces of the text are taken, and of their order."""
    checkpoint_every: Count = 10_000
    """Tokens between checkpoints (there is always one on SIGTERM and Ctrl-C)."""
    log_every: Count = 4
    """Steps between rows of metrics."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_schedule(self)

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON holds it."""
        return {**dataclasses.asdict(self), "betas": list(self.betas)}


class Finetuner:
    """An autoencoder that learns from what the language model predicts with it in place."""

    def __init__(self, config: FinetuneConfig, sae: SparseAutoencoder, model: PatchedModel, variation: float) -> None:
        """`variation` is the mean squared distance of activations from their mean."""
        self.config, self.sae, self.tokens = config, sae, 0
        if isinstance(sae.coder, Candidates) and sae.latent_bias is not None:
            sae.latent_bias.requires_grad_(False)  # it says who may fire, which has no derivative
        self.descent = Descent(sae, config, config.learning_rate or default_learning_rate(sae))
        self._model, self._variation = model, variation
        self._unit_columns = isinstance(sae.coder, OMP)
        if self._unit_columns:
            sae.dictionary.normalise_columns()  # which changes no reconstruction

    def step(self, part: Part) -> Numbers:
        """Learn from a batch; gives back kl, fvu, ce, grad_norm and learning_rate."""
        rate = self.descent.begin(self.tokens)
        losses = self.losses(part)
        (losses["kl"] + self.config.fvu_weight * losses["fvu"]).backward()  # type: ignore[no-untyped-call]
        norm = self.descent.step(Group())
        self.tokens += part.tokens
        if not norm.isfinite():
            raise ExpanderError(f"The loss is not finite after {self.tokens:,} tokens; use a smaller learning rate.")
        if self._unit_columns:
            self.sae.dictionary.normalise_columns()
        found = {name: float(value.detach()) for name, value in {**losses, "grad_norm": norm}.items()}
        found["learning_rate"] = rate
        return {name: Mean(part.tokens * value, part.tokens) for name, value in found.items()}

    def losses(self, part: Part) -> dict[str, Float[Tensor, ""]]:
        """kl and fvu, through which gradients flow, and ce."""
        with torch.no_grad():
            clean = self._model.logits(part.ids, part.activations)
        x = part.x.to(self.sae.pre_bias.dtype)
        residual = differentiable_residual(self.sae, x) / self.sae.scale
        fvu = residual.square().sum() / (max(1, len(x)) * self._variation)
        divergence, entropy = mean_losses(part, self._model.logits(part.ids, part.replaced_by(x - residual)), clean)
        return {"kl": divergence, "fvu": fvu, "ce": entropy}

    def finished(self) -> SparseAutoencoder:
        """A copy of the autoencoder as it is to be kept."""
        return copy.deepcopy(self.sae)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on; with `tokens`, all that there is."""
        return self.descent.state_dict()

    @torch.no_grad()
    def load_state_dict(self, state: SavedTensors, tokens: int) -> None:
        """Be again what `state_dict` was taken of, after this many tokens."""
        self.descent.make_moments(state)
        self.tokens = tokens
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


def default_learning_rate(sae: SparseAutoencoder) -> float:
    """The default peak: a third of what training takes for as many columns with as many values."""
    one_shot = isinstance(sae.coder, OneShotCoder)
    return SHARE_OF_TRAINING * learning_rate_rule(sae.n, sae.dictionary.learned_values / sae.n, one_shot)


@dataclass(frozen=True)
class FinetuneRun:
    """A fine-tuned dictionary."""

    sae: SparseAutoencoder
    config: FinetuneConfig
    metrics: list[dict[str, float]]
    """Rows of step, tokens, kl, fvu, ce, grad_norm, learning_rate and tokens_per_second."""
    path: Path | None
    """The folder that holds the autoencoder and metrics.jsonl, if one was asked for."""


def finetune(
    sae: SparseAutoencoder,
    language_model: LanguageModel,
    config: FinetuneConfig | None = None,
    *,
    hookpoint: str | None = None,
    text: TextConfig | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FinetuneRun:
    """A copy of the autoencoder that has learned to keep the language model's predictions; its rows are the same.

    The loss is KL(clean || patched), averaged over predicted tokens, plus a weight times the fraction of variance
    unexplained. Hookpoint and text are those of the training unless given. With `out`, the autoencoder and
    metrics.jsonl are written there, and a checkpoint at intervals and on SIGTERM or Ctrl-C, from which `resume` goes on
    as if nothing had happened.
    """
    config, folder = config or FinetuneConfig(), None if out is None else Path(out)
    check_coder(sae)
    _check_folder(folder, resume)
    saved = checkpoint_to_resume(folder, resume)
    subjects = {"The autoencoder": sae}
    setting = Setting.of(subjects, language_model, hookpoint, text or text_for(subjects, part="train"))
    _check_width(sae, language_model, setting)
    identity = _Identity(config, _digest(sae), origin_at(language_model, setting.hookpoint, setting.text))
    if saved is not None and folder is not None:
        saved.check_same([identity], folder)
    _check_means(config, language_model)
    with waiting("reading the text and its activations", progress):
        passage = Passage.drawn(
            language_model, setting.text, config.tokens, tokens_per_batch=config.batch, seed=config.seed
        )
        activations = TextActivations(language_model, setting.hookpoint, passage, setting.massive_above)
    model = PatchedModel(language_model, setting.hookpoint)
    finetuner = Finetuner(config, copy.deepcopy(sae).to(language_model.device), model, activations.variation)
    engine = Engine([Entry(finetuner, "fine-tuning", identity, folder)], config, passage.tokens, folder, saved)
    # The number of steps is the number of the batch that comes next: a checkpoint needs no other cursor.
    engine.complete(activations.parts(engine.steps), dict, progress=progress, shown=SHOWN)
    origin = {**identity.origin, "massive_above": activations.massive_above}
    return _kept(finetuner, engine, origin)


def _check_means(config: FinetuneConfig, language_model: LanguageModel) -> None:
    """Refuse what this machine cannot do: logits of a batch, with the gradient, and three passes a token."""
    place, logits = str(language_model.device), 4.0 * min(config.batch, config.tokens) * language_model.vocabulary
    check_memory(f"A batch of {config.batch:,} tokens", 2 * logits, place, "give a smaller batch")
    work = 3.0 * config.tokens * language_model.parameters
    check_time(f"Fine-tuning on {config.tokens:,} tokens", work, place, "ask for fewer tokens")


def _kept(finetuner: Finetuner, engine: Engine[Part], origin: Mapping[str, Any]) -> FinetuneRun:
    """The fine-tuned dictionary, also on disk."""
    sae, config, rows = finetuner.finished(), finetuner.config, engine.journals[0].rows
    sae.provenance = {
        **sae.provenance,
        # What an evaluation takes where it is told nothing else.
        "activations": {**sae.provenance.get("activations", {}), **origin},
        "finetuned": {
            **config.to_json(),
            "learning_rate": finetuner.descent.peak,
            "steps": engine.steps,
            "tokens": engine.tokens,
            "threads": torch.get_num_threads(),
            "metrics": last_measured(rows),
            "activations": origin,
        },
    }
    if engine.folder is not None:
        sae.save(engine.folder)
    return FinetuneRun(sae, config, rows, engine.folder)


@dataclass(frozen=True)
class _Identity:
    """What must be the same for a run to go on."""

    config: FinetuneConfig
    autoencoder: str
    """Of what the run began with."""
    origin: Mapping[str, Any]
    """Of the activations."""

    def to_json(self) -> dict[str, Any]:
        """All of it, side by side."""
        return {**self.origin, **self.config.to_json(), "autoencoder": self.autoencoder}


def _check_folder(folder: Path | None, resume: bool) -> None:
    """Refuse a folder that holds something which is no run."""
    if folder is None:
        if resume:
            raise ExpanderError("Resuming needs a folder; give out.")
    elif folder.exists() and not resume and not has_checkpoint(folder) and not _is_left_over(folder):
        raise ExpanderError(f"{folder} already holds something else; choose another folder.")


def _is_left_over(folder: Path) -> bool:
    """Whether the folder holds no more than a run leaves that was killed before its first checkpoint."""
    return folder.is_dir() and all(path.name in (METRICS, f"{METRICS}.tmp", CHECKPOINT) for path in folder.iterdir())


def _check_width(sae: SparseAutoencoder, language_model: LanguageModel, setting: Setting) -> None:
    """Refuse a hookpoint of another width before the text is read."""
    probe = torch.zeros(1, 2, dtype=torch.int64, device=language_model.device)
    found = read_activations(language_model.model, [setting.hookpoint], probe)[setting.hookpoint]
    check_width({"The autoencoder": sae}, found.shape[-1], f"those of {setting.hookpoint}")


def _digest(sae: SparseAutoencoder) -> str:
    """Short, and another one for another autoencoder."""
    tensors = [*sae.parameters(), *sae.buffers()]
    content = b"".join(tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:12]
