"""Tables that a terminal and a page show alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from expander_sae.evaluation.results import Estimate


@dataclass(frozen=True)
class Cell:
    """A number, and under it what says how sure it is or what it means."""

    text: str
    below: str = ""
    """On a page."""
    terse: str = ""
    """Instead of it where there is little room, on a terminal."""


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row."""

    headings: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]

    def to_rich(self) -> RichTable:
        """The table for a terminal."""
        table = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)  # nine columns have to fit
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
        return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _lines(cell: Cell) -> str:
    return f"{cell.text}\n{cell.terse}" if cell.terse else cell.text


def estimate_cell(estimate: Estimate | None, *, percent: bool = False) -> Cell:
    """A number and its interval, if it has one; a dash for what is not known."""

    def shown(number: float) -> str:
        return f"{number:.1%}" if percent else f"{number:.3f}"

    if estimate is None or math.isnan(estimate.value):
        return Cell("–")
    if math.isnan(estimate.low) or estimate.low == estimate.high:
        return Cell(shown(estimate.value))
    half = shown(estimate.half_width).removesuffix("%")
    return Cell(shown(estimate.value), f"{shown(estimate.low)} to {shown(estimate.high)}", f"±{half}")
