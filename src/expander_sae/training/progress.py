"""The live line of a run: how far, how well, how fast, how long still."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

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


class Display:
    """One line per dictionary on the terminal's error stream; nothing where it is not shown."""

    def __init__(self, names: Sequence[str], total: int, done: int, shown: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  FVU {task.fields[fvu]}  dead {task.fields[dead]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._tasks = [
            self._progress.add_task(name, total=total, completed=done, fvu="-", dead="-", speed="-") for name in names
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
            fvu=f"{row['fvu']:.3f}",
            dead=f"{row['dead']:.1%}",
            speed=f"{row['tokens_per_second']:,.0f}",
        )
