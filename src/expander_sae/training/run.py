"""`train`: many dictionaries in one pass over the batches, and what becomes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import torch
from torch import Tensor

from expander_sae.activations.live import LiveActivations
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import at_least
from expander_sae.console import waiting
from expander_sae.distribution import current_group
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory, check_time, device_named
from expander_sae.training.checkpoints import Checkpoint, CheckpointError, checkpoint_to_resume
from expander_sae.training.config import TrainConfig, check_one_pass
from expander_sae.training.engine import PROBE_EVERY, Engine, Entry, Probe
from expander_sae.training.learner import Trainee
from expander_sae.training.metrics import Sink, last_measured
from expander_sae.training.sources import BatchSource, open_source, origin_of
from expander_sae.training.start import Sample, new_autoencoder

Source = Store | BatchSource | Tensor
"""What can be trained on: a store, a matrix of activations [tokens, m], or batches of one's own making."""


@dataclass(frozen=True)
class Run:
    """A trained dictionary."""

    sae: SparseAutoencoder
    config: TrainConfig
    metrics: list[dict[str, float]]
    """Rows of step, tokens, fvu, auxk, dead, l0, learning_rate, grad_norm, tokens_per_second and what a probe gave."""
    path: Path | None
    """The folder that holds the autoencoder and metrics.jsonl, if one was asked for."""


class Options(TypedDict, total=False):
    """What `train` takes besides the source and the configs."""

    out: str | PathLike[str] | None
    resume: bool
    progress: bool
    device: torch.device | str | None
    also_log: Sequence[Sink]
    probe: Probe | None
    probe_every: int


@overload
def train(source: Source, config: TrainConfig, **options: Unpack[Options]) -> Run: ...


@overload
def train(source: Source, config: Sequence[TrainConfig], **options: Unpack[Options]) -> list[Run]: ...


def train(
    source: Source,
    config: TrainConfig | Sequence[TrainConfig],
    *,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    device: torch.device | str | None = None,
    also_log: Sequence[Sink] = (),
    probe: Probe | None = None,
    probe_every: int = PROBE_EVERY,
) -> Run | list[Run]:
    """Train one dictionary, or several on the same batches; each is what it would have become alone, bit for bit.

    With `out`, the autoencoder and metrics.jsonl are written there (with several dictionaries, to a folder each, by
    their names), and a checkpoint at intervals and on SIGTERM or Ctrl-C, from which `resume` goes on as if nothing had
    happened. Under torchrun every process takes its share of each batch and the first one writes.

    A `probe` measures every dictionary whenever another `probe_every` tokens are done, and at the end; its finite
    numbers join that row of metrics. It gets a copy, with the weights that would be kept if the run ended there. The
    first of several processes runs it while the others wait, ten minutes at most.
    """
    configs = [config] if isinstance(config, TrainConfig) else list(config)
    check_one_pass(configs)
    at_least("probe_every", probe_every, 1)
    folder = None if out is None else Path(out)
    if folder is None and (resume or also_log):
        raise ExpanderError("Resuming and logging need a folder; give out.")
    saved = checkpoint_to_resume(folder, resume)
    if saved is not None and folder is not None:
        saved.check_same(configs, folder)
    group, place = current_group(), device_named(device)
    _check_means(configs, _width(source), place)
    with open_source(source, configs[0], group) as batches:
        sample = _sample(source, batches, configs[0].batch, saved, place, progress and group.writes)
        trainees = [Trainee(each, new_autoencoder(each, sample, group), sample, group) for each in configs]
        entries = [Entry(trainee, each.name, each, at)
                   for trainee, each, at in zip(trainees, configs, _folders(folder, configs), strict=True)]  # fmt: skip
        engine = Engine(
            entries, configs[0], configs[0].tokens, folder, saved,
            group=group, also_log=also_log, probe=probe, probe_every=probe_every,
        )  # fmt: skip
        moved = (x.to(place, torch.promote_types(x.dtype, torch.float32)) for x in batches)
        engine.complete(moved, batches.state_dict, progress=progress)
    runs = [_kept(trainee, engine, number, origin_of(source)) for number, trainee in enumerate(trainees)]
    group.wait()
    return runs[0] if isinstance(config, TrainConfig) else runs


def _width(source: Source) -> int | None:
    """Of the activations; unknown of batches that others make."""
    if isinstance(source, Tensor):
        return source.shape[-1]
    return source.width if isinstance(source, Store | LiveActivations) else None


def _bytes_in_training(config: TrainConfig, m: int) -> float:
    """What training takes at least: values with their gradient and Adam's two moments, and the codes of a batch."""
    size = 8 if config.precision == "float64" else 4
    values = config.entries_at(m) * (1 if config.tied else 2) * 4 * size
    rows = 0 if config.d is None else 4 * config.entries
    return float(values + rows + config.batch * (config.n * size if config.d is None else 12 * config.k))


def _check_means(configs: list[TrainConfig], m: int | None, device: torch.device) -> None:
    """Refuse what this machine cannot hold, or not do in time."""
    if m is None:
        return
    batch = 8.0 * configs[0].batch * m
    needed = batch + sum(_bytes_in_training(config, m) for config in configs)
    check_memory("Training", needed, str(device), "give a smaller n, d or batch")
    work = float(configs[0].tokens) * sum(config.entries_at(m) for config in configs)
    check_time(f"Training on {configs[0].tokens:,} tokens", work, str(device), "give fewer tokens or a smaller n or d")


def _sample(
    source: Source, batches: BatchSource, batch: int, saved: Checkpoint | None, device: torch.device, says: bool
) -> Sample:
    """What the start needs to know of the tokens; brings the batches to where the checkpoint is, if there is one."""
    if saved is None:
        with waiting("reading the first activations", says):
            return Sample.of(batches, batch, device=device)
    if isinstance(source, Store | LiveActivations) and source.width != saved.width:
        raise CheckpointError(
            f"The run was trained on activations of width {saved.width}, not {source.width}; resume with the same ones "
            "or start anew in another folder."
        )
    batches.load_state_dict(saved.cursor)
    return Sample.unknown(saved.width, device)


def _kept(trainee: Trainee, engine: Engine[Tensor], number: int, origin: dict[str, Any]) -> Run:
    """A trained dictionary, also on disk."""
    sae, rows, folder = trainee.finished(), engine.journals[number].rows, engine.entries[number].folder
    sae.provenance = {
        "training": trainee.config.to_json(),
        "learning_rate": trainee.descent.peak,
        "steps": engine.steps,
        "tokens": engine.tokens,
        "processes": engine.group.world,
        "threads": torch.get_num_threads(),
        "metrics": last_measured(rows),
        "activations": origin,
    }
    if folder is not None and engine.group.writes:
        sae.save(folder)
    return Run(sae, trainee.config, rows, folder)


def _folders(folder: Path | None, configs: list[TrainConfig]) -> list[Path | None]:
    """Where each dictionary goes."""
    if folder is None or len(configs) == 1:
        return [folder] * len(configs)
    return [folder / config.name for config in configs]
