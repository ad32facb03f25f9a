"""The loop: one pass over the batches, any number of dictionaries learning from each, saved so that it can go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.live import LiveActivations
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.console import waiting
from expander_sae.distribution import Group, current_group
from expander_sae.errors import ExpanderError
from expander_sae.training.building import Sample, build
from expander_sae.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    has_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from expander_sae.training.config import TrainConfig, check_one_pass
from expander_sae.training.journal import Journal
from expander_sae.training.losses import batch_statistics
from expander_sae.training.metrics import Sink
from expander_sae.training.probing import Probe, Probing
from expander_sae.training.progress import Display
from expander_sae.training.sources import BatchSource, open_source, origin_of
from expander_sae.training.stopping import StopRequest
from expander_sae.training.trainee import Trainee

Source = Store | BatchSource | Tensor
"""What can be trained on: a store, a matrix of activations [tokens, m], or batches of one's own making."""


PROBE_EVERY = 200_000
"""Tokens between two measurements of a probe."""


class StoppedError(ExpanderError):
    """The run was asked to stop, and did so after saving a checkpoint."""


@dataclass(frozen=True)
class Run:
    """A trained dictionary."""

    sae: SparseAutoencoder
    config: TrainConfig
    metrics: list[dict[str, float]]
    """Rows of step, tokens, fvu, auxk, dead, l0, tokens_per_second, learning_rate, grad_norm and what a probe gave."""
    path: Path | None
    """The folder that holds the autoencoder and metrics.jsonl, if one was asked for."""


@overload
def train(
    source: Source,
    config: TrainConfig,
    *,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    device: torch.device | str | None = None,
    also_log: Sequence[Sink] = (),
    probe: Probe | None = None,
    probe_every: int = PROBE_EVERY,
) -> Run: ...


@overload
def train(
    source: Source,
    config: Sequence[TrainConfig],
    *,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    device: torch.device | str | None = None,
    also_log: Sequence[Sink] = (),
    probe: Probe | None = None,
    probe_every: int = PROBE_EVERY,
) -> list[Run]: ...


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
    if probe_every < 1:
        raise ExpanderError(f"probe_every must be at least 1, not {probe_every}.")
    folder = None if out is None else Path(out)
    if folder is None and (resume or also_log):
        raise ExpanderError("Resuming and logging need a folder; give out.")
    saved = _checkpoint_of(folder, configs, resume)
    group, place = current_group(), _device(device)
    batches = open_source(source, configs[0], group)
    try:
        if saved is None:
            with waiting("reading the first activations", progress and group.writes):
                sample = Sample.of(batches, configs[0].batch, group, place)
        else:
            _check_width(source, saved)
            batches.load_state_dict(saved.cursor)
            sample = Sample.unknown(saved.width, place)
        trainees = [Trainee(each, build(each, sample, group), group, sample) for each in configs]
        folders = _folders(folder, configs)
        done = 0 if saved is None else saved.tokens
        journals = [Journal(at if group.writes else None, each, done, also_log)
                    for at, each in zip(folders, configs, strict=True)]  # fmt: skip
        run = _Pass(trainees, journals, batches, folder, group, place, Probing(probe, probe_every, group))
        if saved is not None:
            run.load(saved)
        run.complete(progress)
        runs = run.results(folders, origin_of(source))
    finally:
        if batches is not source:
            batches.close()
    return runs[0] if isinstance(config, TrainConfig) else runs


class _Pass:
    """One pass over the batches with several dictionaries."""

    def __init__(
        self,
        trainees: list[Trainee],
        journals: list[Journal],
        batches: BatchSource,
        folder: Path | None,
        group: Group,
        device: torch.device,
        probing: Probing,
    ) -> None:
        self.trainees, self.journals, self.batches, self.group = trainees, journals, batches, group
        self.folder, self.device, self.probing, self.config = folder, device, probing, trainees[0].config
        self.steps, self.tokens, self.saved_at = 0, 0, 0

    def load(self, saved: Checkpoint) -> None:
        """Be where the checkpoint is."""
        self.steps, self.tokens, self.saved_at = saved.step, saved.tokens, saved.tokens
        for trainee, state in zip(self.trainees, saved.tensors, strict=True):
            trainee.load_state_dict(state, saved.tokens)

    def complete(self, progress: bool) -> None:
        """Take the steps that are left."""
        names, shown = [trainee.config.name for trainee in self.trainees], progress and self.group.writes
        with Display(names, self.config.tokens, self.tokens, shown) as display, StopRequest() as request:
            while self.tokens < self.config.tokens:
                before, stop = self.tokens, self._step(request.asked)
                finished = self.tokens >= self.config.tokens
                due = self.tokens - self.saved_at >= self.config.checkpoint_every
                probe = self.probing.due(before, self.tokens, finished)
                if stop or finished or due or probe or self.steps % self.config.log_every == 0:
                    self._write_rows(display, probe)
                if stop or finished or due:
                    self._save()
                if stop and not finished:
                    raise StoppedError(self._farewell())

    def _write_rows(self, display: Display, probe: bool) -> None:
        """Write down how every dictionary does."""
        began = time.perf_counter()
        probed = self.probing.measure(self.trainees) if probe else [{}] * len(self.trainees)
        for number, journal in enumerate(self.journals):
            journal.meter.leave_out(time.perf_counter() - began)
            display.update(number, journal.write(self.steps, self.tokens, probed[number]))

    def _step(self, stop: bool) -> bool:
        """Let every dictionary learn from the next batch; gives back whether any process was asked to stop."""
        x = self._next()
        statistics = batch_statistics(x, self.group, stop)
        for trainee, journal in zip(self.trainees, self.journals, strict=True):
            journal.meter.add(trainee.step(x, statistics))
        self.steps, self.tokens = self.steps + 1, self.tokens + statistics.tokens
        return statistics.stop

    def _next(self) -> Float[Tensor, "tokens m"]:
        try:
            x = next(self.batches)
        except StopIteration:
            raise ExpanderError(
                f"The source ended after {self.tokens:,} of {self.config.tokens:,} tokens; train on fewer."
            ) from None
        return x.to(self.device, torch.promote_types(x.dtype, torch.float32))

    def _save(self) -> None:
        if self.folder is not None and self.group.writes:
            states = [trainee.state_dict() for trainee in self.trainees]
            configs = [trainee.config.to_json() for trainee in self.trainees]
            checkpoint = Checkpoint(configs, self.steps, self.tokens, self.batches.state_dict(), states)
            write_checkpoint(self.folder, checkpoint)
        self.saved_at = self.tokens

    def _farewell(self) -> str:
        at = f"Stopped after {self.tokens:,} of {self.config.tokens:,} tokens"
        if self.folder is None:
            return f"{at}, and nothing is kept, since the run has no folder to write to."
        return f"{at}; the same command with --resume (from Python, resume=True) goes on from there."

    def results(self, folders: Sequence[Path | None], origin: dict[str, Any]) -> list[Run]:
        """The trained dictionaries, also on disk."""
        runs = []
        for trainee, journal, folder in zip(self.trainees, self.journals, folders, strict=True):
            sae = trainee.finished()
            sae.provenance = {
                "training": trainee.config.to_json(),
                "learning_rate": trainee.peak,
                "steps": self.steps,
                "tokens": self.tokens,
                "processes": self.group.world,
                "threads": torch.get_num_threads(),
                "metrics": journal.rows[-1] if journal.rows else {},
                "activations": origin,
            }
            if folder is not None and self.group.writes:
                sae.save(folder)
            journal.close()
            runs.append(Run(sae, trainee.config, journal.rows, folder))
        self.group.wait()
        return runs


def _checkpoint_of(folder: Path | None, configs: list[TrainConfig], resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if that was asked for; refuses to begin anew over one."""
    if folder is None:
        return None
    if resume:
        saved = read_checkpoint(folder)
        saved.check_same(configs, folder)
        return saved
    if has_checkpoint(folder):
        raise CheckpointError(
            f"{folder} already holds a run; go on with --resume (resume=True) or choose another folder."
        )
    return None


def _check_width(source: Source, saved: Checkpoint) -> None:
    """Refuse activations that the dictionaries of the checkpoint are not for."""
    if isinstance(source, Store | LiveActivations) and source.width != saved.width:
        raise CheckpointError(
            f"The run was trained on activations of width {saved.width}, not {source.width}; resume with the same ones "
            "or start anew in another folder."
        )


def _device(device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _folders(folder: Path | None, configs: list[TrainConfig]) -> list[Path | None]:
    """Where each dictionary goes."""
    if folder is None or len(configs) == 1:
        return [folder] * len(configs)
    return [folder / config.name for config in configs]
