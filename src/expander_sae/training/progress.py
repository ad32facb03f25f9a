"""The live lines of a run: how far every dictionary is, how well it does, how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from expander_sae.console import LiveLines


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
        self._names, self._total, self._metrics = names, total, metrics
        self._lines = LiveLines(shown=shown, kept=True)
        unknown = "  ".join(f"{metric.label} -" for metric in metrics)
        for name in names:
            self._lines.update(name, done, total, f"{unknown}  - tokens/s")

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.__exit__()

    def update(self, dictionary: int, row: Mapping[str, float]) -> None:
        """Show a row of metrics."""
        known = "  ".join(f"{metric.label} {row[metric.name]:{metric.format}}" for metric in self._metrics)
        note = f"{known}  {row['tokens_per_second']:,.0f} tokens/s"
        self._lines.update(self._names[dictionary], row["tokens"], self._total, note)
