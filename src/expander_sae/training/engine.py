"""The engine: here whatever learns takes its steps, writes rows of metrics, is probed, saved, stopped and resumed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.console import LiveLines
from expander_sae.distribution import Grid, Group, grid_of
from expander_sae.errors import ExpanderError, StoppedError
from expander_sae.means import Patience
from expander_sae.training.checkpoints import Checkpoint, SavedTensors, Settings, write_checkpoint
from expander_sae.training.metrics import Journal, Numbers, Sink
from expander_sae.training.schedule import Schedule

B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)

Probe = Callable[[SparseAutoencoder], Mapping[str, float]]
"""What else is measured of a dictionary while it trains, such as the language model's loss: numbers by name, to join a
row of metrics."""

PROBE_EVERY = 200_000
"""Tokens between two measurements of a probe."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What asks a run to stop."""


class Shown(NamedTuple):
    """A number of a row that the live line of its learner shows: its label, its name, and how it is written."""

    label: str
    name: str
    format: str


FVU = Shown("FVU", "fvu", ".3f")
DEAD = Shown("dead", "dead", ".1%")


class Learner(Protocol[B_contra]):
    """Whatever learns from batches, one step at a time."""

    tokens: int
    """Learned from so far, in all processes together."""

    def step(self, batch: B_contra, /) -> Numbers:
        """Learn from a batch; gives back what was measured on the way."""


class ResumableLearner(Learner[B_contra], Protocol[B_contra]):
    """A learner whose runs can be written down and gone on with; its numbers tell its `fvu`."""

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on; with `tokens`, all that there is."""

    def load_state_dict(self, state: SavedTensors, tokens: int) -> None:
        """Be again what `state_dict` was taken of, after this many tokens."""

    def finished(self) -> SparseAutoencoder:
        """A copy of the autoencoder as it is to be kept if the run ends now."""


def learn(learner: Learner[B], batches: Iterator[B], tokens: int) -> None:
    """Let a learner take steps until it has learned from this many tokens; nothing is written, shown or saved."""
    patience = Patience()
    while learner.tokens < tokens:
        learner.step(_next(batches, learner.tokens, tokens))
        patience.check(f"Learning from {tokens:,} tokens", learner.tokens, tokens)


def _next(batches: Iterator[B], done: int, tokens: int) -> B:
    try:
        return next(batches)
    except StopIteration:
        raise ExpanderError(f"The source ended after {done:,} of {tokens:,} tokens; train on fewer.") from None


@dataclass(frozen=True)
class Entry(Generic[B]):
    """A learner that takes part in a run."""

    learner: ResumableLearner[B]
    name: str
    settings: Settings
    """What has to be the same for the run to go on."""
    folder: Path | None
    """Where its metrics go."""


class Engine(Generic[B]):
    """Lets some learners take their steps on the same batches."""

    def __init__(
        self,
        entries: Sequence[Entry[B]],
        schedule: Schedule,
        tokens: int,
        folder: Path | None,
        saved: Checkpoint[SavedTensors] | None,
        *,
        grid: Grid | None = None,
        also_log: Sequence[Sink] = (),
        probe: Probe | None = None,
        probe_every: int = PROBE_EVERY,
    ) -> None:
        """Up to this many tokens, with a checkpoint in the folder; goes on from the one that was saved, if any."""
        self.entries, self.schedule, self.total, self.folder = entries, schedule, tokens, folder
        self.grid = grid or grid_of(Group())
        self.group = self.grid.everyone
        self.probe, self.probe_every = probe, probe_every
        self.steps, self.tokens = (0, 0) if saved is None else (saved.step, saved.tokens)
        self.saved_at = self.tokens
        if saved is not None:
            for entry, state in zip(entries, saved.tensors, strict=True):
                entry.learner.load_state_dict(state, saved.tokens)
        self.journals = [
            Journal(entry.folder if self.group.writes else None, entry.name, entry.settings.to_json(), self.tokens,
                    also_log)
            for entry in entries
        ]  # fmt: skip

    def complete(
        self,
        batches: Iterator[B],
        cursor: Callable[[], dict[str, Any]],
        *,
        progress: bool,
        shown: Sequence[Shown] = (FVU, DEAD),
    ) -> None:
        """Take the steps that are left; the cursor tells a checkpoint which batch comes next."""
        live = LiveLines(shown=progress and self.group.writes, kept=True)
        for entry in self.entries:
            live.update(entry.name, self.tokens, self.total, _note(shown, None))
        with live, StopRequest() as request:
            while self.tokens < self.total:
                before = self.tokens
                self._step(_next(batches, self.tokens, self.total))
                stop, finished = self.group.any(request.asked), self.tokens >= self.total
                due = self.tokens - self.saved_at >= self.schedule.checkpoint_every
                # A matter of tokens alone, so that a resumed run probes where the uninterrupted one does.
                passed = before // self.probe_every < self.tokens // self.probe_every
                probes = self.probe is not None and (finished or passed)
                if stop or finished or due or probes or self.steps % self.schedule.log_every == 0:
                    for entry, row in zip(self.entries, self._rows(probes), strict=True):
                        live.update(entry.name, self.tokens, self.total, _note(shown, row))
                if stop or finished or due:
                    self._save(cursor())
                if stop and not finished:
                    raise StoppedError(self._farewell(), request.signal)
        for journal in self.journals:
            journal.close()

    def _step(self, batch: B) -> None:
        """Let every learner learn from the next batch."""
        for entry, journal in zip(self.entries, self.journals, strict=True):
            journal.add(entry.learner.step(batch))
        self.steps, self.tokens = self.steps + 1, self.entries[0].learner.tokens

    def _rows(self, probes: bool) -> Iterator[dict[str, float]]:
        """How every learner does, one after the other, also written down."""
        began = time.perf_counter()
        probed = self._probed() if probes else [{}] * len(self.entries)
        for journal, found in zip(self.journals, probed, strict=True):
            journal.leave_out(time.perf_counter() - began)
            yield journal.write(self.steps, self.tokens, found)

    def _probed(self) -> list[Mapping[str, float]]:
        """What the probe says of each; nothing in the other processes, which wait for the first."""
        found: list[Mapping[str, float]] = [{} for _ in self.entries]
        if self.group.writes and self.probe is not None:
            with torch.no_grad():
                found = [self.probe(entry.learner.finished()) for entry in self.entries]
        self.group.wait()
        return found

    def _save(self, cursor: dict[str, Any]) -> None:
        if self.folder is not None and self.grid.data.rank == 0:  # all others hold the same as one of these
            states = [entry.learner.state_dict() for entry in self.entries]
            settings = [entry.settings.to_json() for entry in self.entries]
            write_checkpoint(self.folder, Checkpoint(settings, self.steps, self.tokens, cursor, states),
                             self.grid.features)  # fmt: skip
        self.saved_at = self.tokens

    def _farewell(self) -> str:
        at = f"Stopped after {self.tokens:,} of {self.total:,} tokens"
        if self.folder is None:
            return f"{at}, and nothing is kept, since the run has no folder to write to."
        return f"{at}; the same command with --resume (from Python, resume=True) goes on from there."


def _note(shown: Sequence[Shown], row: Mapping[str, float] | None) -> str:
    """What a live line says of a row, or before there is one."""
    if row is None:
        return "  ".join([*(f"{number.label} -" for number in shown), "- tokens/s"])
    known = [f"{number.label} {row[number.name]:{number.format}}" for number in shown]
    return "  ".join([*known, f"{row['tokens_per_second']:,.0f} tokens/s"])


class StopRequest:
    """While it is entered, SIGTERM and Ctrl-C only set `asked` and `signal`; a second one acts as it always does.

    The step in progress is finished and saved first. Only the main thread gets signals; a run in another thread is
    stopped by whatever stops the process.
    """

    def __init__(self) -> None:
        self.asked, self.signal = False, int(signal.SIGTERM)  # what another process of the run was told
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.signal = True, number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
