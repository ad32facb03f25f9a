"""How long columns may be: learned ones share a budget of values, d on average, of which the worthier take more."""

from __future__ import annotations

from dataclasses import dataclass

LONG_COLUMNS = 16
"""Values per column from which the readable objective spreads them more evenly over frequent and rare features."""


@dataclass(frozen=True)
class Lengths:
    """The bounds of an expander dictionary's columns, and by what they are told to be long or short."""

    d: int
    """Values per column, on average."""
    stretch: int | None
    """How many times d values the longest may have, if that was said."""
    learned: bool
    """Whether columns choose their coordinates."""
    readable: bool
    """Whether features are to be read, and so are pruned while they learn."""
    composed: bool
    """Whether columns are mixtures of atoms."""
    one_shot: bool
    """Whether codes are read off one product, under which columns do not move."""

    def longest(self, m: int) -> int:
        """The most values that a column may have, for activations (or atoms) of width m."""
        uneven = self.learned and (self.readable or not self.one_shot)
        return min(m, self.stretching * self.d) if uneven else self.d

    @property
    def stretching(self) -> int:
        """How many times d values the longest learned column may have, the default filled in."""
        usual = 4 if self.readable and self.d >= LONG_COLUMNS else 8
        usual = 2 if self.composed else usual
        return usual if self.stretch is None else self.stretch

    @property
    def least(self) -> int:
        """The fewest values that a column may have."""
        if self.composed:
            return min(2, self.d)  # with one atom it would be that atom again
        if self.stretch == 1 or (self.one_shot and not self.readable):
            return self.d
        if self.readable:  # shorter ones mean nothing, and take values from those that could
            return max(1, self.d // (2 if self.d >= LONG_COLUMNS else 3))
        return least_degree(self.d)

    @property
    def worth(self) -> float:
        """The power of a feature's energy that an entry's worth is proportional to when columns are pruned."""
        if self.composed:
            return 0.0
        return 0.5 if self.d >= LONG_COLUMNS else 1.0


def least_degree(d: int) -> int:
    """The fewest values of a column where d is the average: a third of it, or rare features are lost."""
    return -(-d // 3)
