"""The loop of fine-tuning: one pass over some text, saved so that it can go on."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from expander_sae.activations.harvest import TextConfig, origin_at
from expander_sae.activations.hookpoints import read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.console import waiting
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.setting import Setting, text_for
from expander_sae.evaluation.subjects import check_width
from expander_sae.evaluation.text import Passage, TextActivations
from expander_sae.finetuning.codes import check_coder
from expander_sae.finetuning.config import FinetuneConfig
from expander_sae.finetuning.finetuner import Finetuner
from expander_sae.finetuning.record import Record
from expander_sae.interventions.replaced import PatchedModel
from expander_sae.training.checkpoints import Checkpoint, has_checkpoint, read_checkpoint, write_checkpoint
from expander_sae.training.loop import StoppedError
from expander_sae.training.progress import FVU, Display, Shown
from expander_sae.training.stopping import StopRequest

SHOWN = (Shown("KL", "kl", ".3f"), FVU)


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
    saved = _checkpoint_of(folder, resume)
    subjects = {"The autoencoder": sae}
    setting = Setting.of(subjects, language_model, hookpoint, text or text_for(subjects, part="train"))
    _check_width(sae, language_model, setting)
    identity = _Identity(config, _digest(sae), origin_at(language_model, setting.hookpoint, setting.text))
    if saved is not None and folder is not None:
        saved.check_same([identity], folder)
    with waiting("reading the text and its activations", progress):
        passage = Passage.drawn(
            language_model, setting.text, config.tokens, tokens_per_batch=config.batch, seed=config.seed
        )
        activations = TextActivations(language_model, setting.hookpoint, passage, setting.massive_above)
    learning = copy.deepcopy(sae).to(language_model.device)
    model = PatchedModel(language_model, setting.hookpoint)
    run = _Pass(Finetuner(config, learning, model, activations.variation), activations, folder, identity)
    if saved is not None:
        run.load(saved)
    run.complete(progress)
    return run.result()


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


class _Pass:
    """One pass over the text."""

    def __init__(
        self, finetuner: Finetuner, activations: TextActivations, folder: Path | None, identity: _Identity
    ) -> None:
        self.finetuner, self.activations, self.folder, self.identity = finetuner, activations, folder, identity
        self.steps, self.saved_at, self.rows = 0, 0, list[dict[str, float]]()

    def load(self, saved: Checkpoint) -> None:
        """Be where the checkpoint is."""
        self.steps, self.saved_at = saved.step, saved.tokens
        self.finetuner.load_state_dict(saved.tensors[0], saved.tokens)

    def complete(self, progress: bool) -> None:
        """Take the steps that are left."""
        config, total = self.finetuner.config, self.activations.passage.tokens
        record = Record(self.folder, self.finetuner.tokens)
        self.rows = record.rows
        with Display(["fine-tuning"], total, self.finetuner.tokens, progress, SHOWN) as display, StopRequest() as asked:
            for part in self.activations.parts(self.steps):
                stop = asked.asked
                record.add(part.tokens, self.finetuner.step(part))
                self.steps += 1
                finished = self.steps == len(self.activations.passage.batches)
                due = self.finetuner.tokens - self.saved_at >= config.checkpoint_every
                if stop or finished or due or self.steps % config.log_every == 0:
                    display.update(0, record.write(self.steps, self.finetuner.tokens))
                if stop or finished or due:
                    self._save()
                if stop and not finished:
                    raise StoppedError(self._farewell(total))
        record.close()

    def _save(self) -> None:
        if self.folder is not None:
            state = [self.finetuner.state_dict()]
            checkpoint = Checkpoint([self.identity.to_json()], self.steps, self.finetuner.tokens, {}, state)
            write_checkpoint(self.folder, checkpoint)
        self.saved_at = self.finetuner.tokens

    def _farewell(self, total: int) -> str:
        at = f"Stopped after {self.finetuner.tokens:,} of {total:,} tokens"
        if self.folder is None:
            return f"{at}, and nothing is kept, since the run has no folder to write to."
        return f"{at}; the same command with --resume (from Python, resume=True) goes on from there."

    def result(self) -> FinetuneRun:
        """The fine-tuned dictionary, also on disk."""
        sae, config = self.finetuner.sae, self.finetuner.config
        origin = {**self.identity.origin, "massive_above": self.activations.massive_above}
        sae.provenance = {
            **sae.provenance,
            # What an evaluation takes where it is told nothing else.
            "activations": {**sae.provenance.get("activations", {}), **origin},
            "finetuned": {
                **config.to_json(),
                "learning_rate": self.finetuner.peak,
                "steps": self.steps,
                "tokens": self.finetuner.tokens,
                "threads": torch.get_num_threads(),
                "metrics": self.rows[-1],
                "activations": origin,
            },
        }
        if self.folder is not None:
            sae.save(self.folder)
        return FinetuneRun(sae, config, self.rows, self.folder)


def _checkpoint_of(folder: Path | None, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if that was asked for; refuses a folder that already holds something."""
    if folder is None:
        if resume:
            raise ExpanderError("Resuming needs a folder; give out.")
        return None
    if resume:
        return read_checkpoint(folder)
    if has_checkpoint(folder):
        raise ExpanderError(
            f"{folder} already holds a run; go on with --resume (resume=True) or choose another folder."
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ExpanderError(f"{folder} already holds something else; choose another folder.")
    return None


def _check_width(sae: SparseAutoencoder, language_model: LanguageModel, setting: Setting) -> None:
    """Refuse a hookpoint of another width before the text is read."""
    probe = torch.zeros(1, 2, dtype=torch.int64, device=language_model.device)
    found = read_activations(language_model.model, [setting.hookpoint], probe)[setting.hookpoint]
    check_width({"The autoencoder": sae}, found.shape[-1], str(setting.hookpoint))


def _digest(sae: SparseAutoencoder) -> str:
    """Short, and another one for another autoencoder."""
    tensors = [*sae.parameters(), *sae.buffers()]
    content = b"".join(tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:12]
