"""The live line of a run: how far, how well, how fast, how long still."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def waiting(what: str, shown: bool) -> Iterator[None]:
    """Say what takes its time while the block runs, on the terminal's error stream."""
    if not shown:
        yield
        return
    with Console(stderr=True).status(what):
        yield


class Shown(NamedTuple):
    """A number of every row: its label, its name in the row, and how it is written."""

    label: str
    name: str
    format: str


FVU = Shown("FVU", "fvu", ".3f")
DEAD = Shown("dead", "dead", ".1%")


class Display:
    """One line per dictionary on the terminal's error stream; nothing where it is not shown."""

    def __init__(
        self, names: Sequence[str], total: int, done: int, shown: bool, metrics: Sequence[Shown] = (FVU, DEAD)
    ) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[metrics]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
        )
        self._metrics = metrics
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not shown)
        unknown = "  ".join(f"{metric.label} -" for metric in metrics)
        self._tasks = [
            self._progress.add_task(name, total=total, completed=done, metrics=unknown, speed="-") for name in names
        ]

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def update(self, dictionary: int, row: Mapping[str, float]) -> None:
        """Show a row of metrics."""
        self._progress.update(
            self._tasks[dictionary],
            completed=row["tokens"],
            metrics="  ".join(f"{metric.label} {row[metric.name]:{metric.format}}" for metric in self._metrics),
            speed=f"{row['tokens_per_second']:,.0f}",
        )
