"""Tables that a terminal, a text file and a page show alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from expander_sae.evaluation.results import Interval

Row = TypeVar("Row")


@dataclass(frozen=True)
class Cell:
    """A number, and under it what says how sure it is or what it means."""

    text: str
    below: str = ""
    """On a page."""
    terse: str = ""
    """Instead of it where there is little room, on a terminal."""


class Percent(NamedTuple):
    """A share that a table shows in percent."""

    share: Interval


Shown = Cell | Percent | Interval | str | int
"""What a column may give back for a row."""


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row."""

    headings: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    """Which statistic the intervals are."""

    @classmethod
    def of(cls, rows: Iterable[Row], columns: Mapping[str | Cell, Callable[[Row], Shown]]) -> Table:
        """A line for every row, a column for every heading; the caption says which statistic the intervals are."""
        found = [[of(row) for of in columns.values()] for row in rows]
        headings = [Cell(heading) if isinstance(heading, str) else heading for heading in columns]
        return cls(headings, [[_cell(shown) for shown in line] for line in found], _caption(headings, found))

    def to_rich(self) -> RichTable:
        """The table for a terminal."""
        table = RichTable(  # nine columns have to fit
            box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=Text(self.caption), caption_justify="left"
        )
        for number, heading in enumerate(self.headings):
            first = number == 0
            table.add_column(Text(_lines(heading)), justify="left" if first else "right", no_wrap=first)
        for row in self.rows:
            table.add_row(*(Text(_lines(cell)) for cell in row))
        return table

    def to_markdown(self) -> str:
        """The table for a file that is read as text or as Markdown."""
        lines = [
            [" ".join(filter(None, (cell.text, cell.terse))) for cell in row] for row in (self.headings, *self.rows)
        ]
        rule = ["---" if number == 0 else "---:" for number in range(len(self.headings))]
        table = "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))
        return f"{table}\n{self.caption}\n" if self.caption else table


def interval_cell(interval: Interval | None, *, percent: bool = False) -> Cell:
    """A number and its interval, if it has one; a dash for what is not known."""

    def shown(number: float) -> str:
        return f"{number:.1%}" if percent else f"{number:.3f}"

    if interval is None or math.isnan(interval.value):
        return Cell("–")
    if not _has_ends(interval):
        return Cell(shown(interval.value))
    half = shown(interval.half_width).removesuffix("%")
    return Cell(shown(interval.value), f"{shown(interval.low)} to {shown(interval.high)}", f"±{half}")


def _has_ends(interval: Interval) -> bool:
    return not math.isnan(interval.low) and interval.low != interval.high


def _cell(shown: Shown) -> Cell:
    match shown:
        case Cell():
            return shown
        case Percent():
            return interval_cell(shown.share, percent=True)
        case Interval():
            return interval_cell(shown)
        case int():
            return Cell(f"{shown:,}")
    return Cell(shown)


def _caption(headings: Sequence[Cell], rows: Sequence[Sequence[Shown]]) -> str:
    """The kinds of the intervals that are shown, each with its columns where there are several kinds."""
    columns = dict[str, list[str]]()
    for number, heading in enumerate(headings):
        cells = [row[number] for row in rows]
        intervals = [each.share if isinstance(each, Percent) else each for each in cells]
        kinds = {each.kind for each in intervals if isinstance(each, Interval) and _has_ends(each)}
        for kind in sorted(kinds):
            columns.setdefault(kind, []).append(heading.text)
    if not columns:
        return ""
    if len(columns) == 1:
        return f"Intervals: {next(iter(columns))}."
    listed = [f"{kind} ({', '.join(names)})" for kind, names in columns.items()]
    return f"Intervals: {'; '.join(listed)}."


def _lines(cell: Cell) -> str:
    return f"{cell.text}\n{cell.terse}" if cell.terse else cell.text
