"""The terminal: where results are printed, and where everything that takes its time is shown.

What users and files have named is printed as it stands: rich's markup is off in all of it, so that a folder may be
called [/x]. Results go to the output, everything that is over when the result is there to the error stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from expander_sae.means import Patience

WIDTH = 100
"""Columns of what is not printed on a terminal, so that wide tables fit a file or a pipe."""


def terminal(*, quiet: bool = False) -> Console:
    """What results are printed on: plain strings, tables of rich; nothing at all if quiet."""
    return _console(stderr=False, quiet=quiet)


def _console(*, stderr: bool, quiet: bool = False) -> Console:
    console = Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


@contextmanager
def waiting(what: str, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Say what takes its time while the block runs; gives a function that says what it is now."""
    if not shown:
        yield lambda what: None
        return
    with _console(stderr=True).status(Text(what)) as status:
        yield lambda what: status.update(Text(what))


class LiveLines:
    """A line for everything under way, by name: how far it is, how fast, how long it will take still, or has taken."""

    def __init__(self, unit: str = "", *, shown: bool = True, kept: bool = False) -> None:
        """With a unit, lines tell how many of it are done in a second; they stay when all is over if they are kept."""
        self._tasks: dict[str, TaskID] = {}
        self._patience: dict[str, Patience] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[note]}", markup=False),
            _Speed(unit),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=_console(stderr=True),
            transient=not kept,
            disable=not shown,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the lines away, or leave them as they are; also after an error."""
        self._progress.stop()

    def update(self, name: str, done: float, total: float, note: str = "") -> None:
        """So much of this is done, and how it does; a new name gets a new line, which may begin in the middle.

        In a command that could not end within the days it has, this refuses to go on.
        """
        self._patience.setdefault(name, Patience()).check(name, done, total)
        if name in self._tasks:
            self._progress.update(self._tasks[name], completed=done, total=total, note=note)
        else:
            self._tasks[name] = self._progress.add_task(name, completed=int(done), total=total, note=note)


class _Speed(TextColumn):
    """How many of a unit were done in a second, lately."""

    def __init__(self, unit: str) -> None:
        super().__init__("", markup=False)
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self._unit}/s" if self._unit and task.speed else "")


class Announcer:
    """Tells of the stages of a long study: what begins, a live line where something is counted, what came out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.live = console.is_terminal
        """Whether others may draw live lines of their own meanwhile."""
        self._live: tuple[LiveLines, str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the live line away, also after an error."""
        if self._live is not None:
            self._live[0].__exit__()
            self._live = None

    def begins(self, stage: str, what: str, total: int | None) -> None:
        """One line, and the live one."""
        self._console.print(f"{stage}: {what}")
        if total is not None:
            lines = LiveLines("tokens", shown=self._console.is_terminal).__enter__()
            self._live = lines, stage, total
            self.proceeds(0)

    def proceeds(self, done: int) -> None:
        """Move the live line."""
        if self._live is not None:
            lines, stage, total = self._live
            lines.update(stage, done, total)

    def ends(self, outcome: str, seconds: float) -> None:
        """The live line gives way to what came of it."""
        self.__exit__()
        self._console.print(f"    {outcome} ({seconds:,.0f} s)")
