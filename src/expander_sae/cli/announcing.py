"""How a long experiment is told on a terminal."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

WIDTH = 100
"""Columns of a table where the terminal does not say how many it has."""


def wide_console() -> Console:
    """A console that tables of many columns fit."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


class Announcer:
    """Says what begins and what came of it, with a live line between where there is something to count."""

    live = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the live line away, also after an error."""
        if self._live is not None:
            self._live[0].stop()
            self._live = None

    def begins(self, stage: str, what: str, total: int | None) -> None:
        """One line, and the live one."""
        self._console.print(f"{stage}: {what}", highlight=False)
        if total is not None:
            columns = (
                BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f} tokens"), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(),
            )  # fmt: skip
            progress = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
            self._live = progress, progress.add_task(stage, total=total)
            progress.start()

    def proceeds(self, done: int) -> None:
        """Move the live line."""
        if self._live is not None:
            progress, task = self._live
            progress.update(task, completed=done)

    def ends(self, outcome: str, seconds: float) -> None:
        """The live line gives way to what came of it."""
        self.__exit__()
        self._console.print(f"    {outcome} ({seconds:,.0f} s)", highlight=False)
