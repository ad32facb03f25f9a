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
from expander_sae.distribution import Grid, current_group, grid_of
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory, check_time, device_named
from expander_sae.training.checkpoints import Checkpoint, CheckpointError, SavedTensors, checkpoint_to_resume
from expander_sae.training.config import TrainConfig
from expander_sae.training.engine import PROBE_EVERY, Engine, Entry, Probe
from expander_sae.training.learner import Trainee
from expander_sae.training.metrics import Sink, last_measured
from expander_sae.training.sharding import assembled, check_shards
from expander_sae.training.sources import BatchSource, open_source, origin_of
from expander_sae.training.start import Sample, new_autoencoder

Source = Store | BatchSource | Tensor
"""What can be trained on: a store, a matrix of activations [tokens, m], or batches of one's own making."""
SHARED = ("tokens", "batch", "shuffle_seed", "checkpoint_every", "log_every")
"""Fields that all dictionaries of one pass must agree on."""


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
    feature_shards: int


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
    feature_shards: int = 1,
) -> Run | list[Run]:
    """Train one dictionary, or several on the same batches; each is what it would have become alone, bit for bit.

    With `out`, the autoencoder and metrics.jsonl are written there (with several dictionaries, to a folder each, by
    their names), and a checkpoint at intervals and on SIGTERM or Ctrl-C, from which `resume` goes on as if nothing had
    happened. Under torchrun every process takes its share of each batch and the first one writes.

    A `probe` measures every dictionary whenever another `probe_every` tokens are done, and at the end; its finite
    numbers join that row of metrics. It gets a copy, with the weights that would be kept if the run ended there. The
    first of several processes runs it while the others wait, ten minutes at most.

    With `feature_shards` each of so many processes holds its part of the columns, and several times as many share the
    batches too. What is written is the whole; a run in memory has the shard, whose calls all of them make together.
    """
    configs = [config] if isinstance(config, TrainConfig) else list(config)
    _check_one_pass(configs)
    at_least("probe_every", probe_every, 1)
    at_least("feature_shards", feature_shards, 1)
    for each in configs:
        check_shards(each, feature_shards)
    if feature_shards > 1 and (probe is not None or isinstance(source, LiveActivations)):
        raise ExpanderError("Features in shards are trained from a store, and measured by no probe meanwhile.")
    folder = None if out is None else Path(out)
    if folder is None and (resume or also_log):
        raise ExpanderError("Resuming and logging need a folder; give out.")
    saved = checkpoint_to_resume(folder, resume)
    if saved is not None and folder is not None:
        saved.check_same(configs, folder)
    grid, place = grid_of(current_group(), feature_shards), device_named(device)
    group = grid.everyone
    _check_means(configs, _width(source), place, feature_shards)
    with open_source(source, configs[0], grid.data) as batches:
        sample = _sample(source, batches, configs[0].batch, saved, place, grid, progress)
        new = (new_autoencoder(each, sample, grid.data, shards=grid.features) for each in configs)
        trainees = [Trainee(each, sae, sample, grid.data) for each, sae in zip(configs, new, strict=True)]
        entries = [Entry(trainee, each.name, each, at)
                   for trainee, each, at in zip(trainees, configs, _folders(folder, configs), strict=True)]  # fmt: skip
        engine = Engine(
            entries, configs[0], configs[0].tokens, folder, saved,
            grid=grid, also_log=also_log, probe=probe, probe_every=probe_every,
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


def _check_means(configs: list[TrainConfig], m: int | None, device: torch.device, shards: int) -> None:
    """Refuse what this machine cannot hold, or not do in time."""
    if m is None:
        return
    batch = 8.0 * configs[0].batch * m
    needed = batch + sum(_bytes_in_training(config, m) for config in configs) / shards
    check_memory("Training", needed, str(device), "give a smaller n, d or batch")
    work = float(configs[0].tokens) * sum(config.entries_at(m) * (config.look or 1) for config in configs) / shards
    check_time(f"Training on {configs[0].tokens:,} tokens", work, str(device), "give fewer tokens or a smaller n or d")


def _sample(
    source: Source,
    batches: BatchSource,
    batch: int,
    saved: Checkpoint[SavedTensors] | None,
    device: torch.device,
    grid: Grid,
    progress: bool,
) -> Sample:
    """What the start needs to know of the tokens; brings the batches to where the checkpoint is, if there is one."""
    if saved is None:
        with waiting("reading the first activations", progress and grid.everyone.writes):
            return Sample.of(batches, batch, grid.data, device)
    if isinstance(source, Store | LiveActivations) and source.width != saved.width:
        raise CheckpointError(
            f"The run was trained on activations of width {saved.width}, not {source.width}; resume with the same ones "
            "or start anew in another folder."
        )
    batches.load_state_dict(saved.cursor)
    return Sample.unknown(saved.width, device)


def _check_one_pass(configs: list[TrainConfig]) -> None:
    """Refuse dictionaries that cannot be trained on the same batches, or told apart on disk."""
    if not configs:
        raise ExpanderError("There is nothing to train; give at least one TrainConfig.")
    for name in SHARED:
        values = {getattr(config, name) for config in configs}
        if len(values) > 1:
            raise ExpanderError(f"Dictionaries of one pass share their batches, so {name} cannot be {sorted(values)}.")
    names = [config.name for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExpanderError(f"Two dictionaries of one pass would both be called {twice[0]}; train them one by one.")


def _kept(trainee: Trainee, engine: Engine[Tensor], number: int, origin: dict[str, Any]) -> Run:
    """A trained dictionary, also on disk."""
    trainee.forget_gradients()  # no step comes any more
    sae, rows, folder = trainee.finished(), engine.journals[number].rows, engine.entries[number].folder
    sae.provenance = {
        "training": trainee.config.to_json(),
        "learning_rate": trainee.descent.peak,
        "steps": engine.steps,
        "tokens": engine.tokens,
        "processes": engine.group.world,
        **({"feature_shards": engine.grid.features.world} if engine.grid.features.world > 1 else {}),
        "threads": torch.get_num_threads(),
        "metrics": last_measured(rows),
        "activations": origin,
    }
    if folder is not None and engine.grid.data.rank == 0:
        whole = assembled(sae, trainee.config)
        if whole is not None:
            whole.save(folder)
    return Run(sae, trainee.config, rows, folder)


def _folders(folder: Path | None, configs: list[TrainConfig]) -> list[Path | None]:
    """Where each dictionary goes."""
    if folder is None or len(configs) == 1:
        return [folder] * len(configs)
    return [folder / config.name for config in configs]
