"""What a study of scaling is asked for, and the grid of dictionaries that are trained for it."""

import dataclasses
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import ClassVar, Literal

from expander_sae.checks import Count, StudyFolder
from expander_sae.errors import ExpanderError
from expander_sae.studies.data import ActivationsConfig
from expander_sae.training import TrainConfig

FACTORS = ("n", "k", "d", "tokens")
"""What a law says the error by."""
SPARE = 3
"""Cells that there must be beyond the parameters of a product of powers, or nothing is left to test it with."""


@dataclass(frozen=True)
class Grid:
    """All of these with all of those, each in rising order."""

    n: tuple[int, ...]
    k: tuple[int, ...]
    d: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def varied(self) -> tuple[str, ...]:
        """Factors of which there are several values."""
        return tuple(name for name in FACTORS if len(getattr(self, name)) > 1)

    @property
    def cells(self) -> int:
        """How many dictionaries one seed has."""
        return prod(len(getattr(self, name)) for name in FACTORS)


@dataclass(frozen=True)
class ScalingConfig(ActivationsConfig):
    """Fit laws to the error over features, active features, values per column and tokens.

    Trains a dictionary for every combination, all of one number of tokens in one pass, and measures FVU on held-out
    tokens. Fits powers, with interactions or a floor, and says how far each is off on cells that it has not seen.
    Writes tables, the numbers and pictures; run it again to go on where it was stopped.
    """

    held_out: Path | None = None
    """A store of other text to measure on; without one it is harvested from the held-out part of the store's text, with
    the language model that the store names."""
    n: tuple[Count, ...] | None = None
    """Features; by default 2, 4 and 8 for every coordinate of an activation, on planted ones 1, 2 and 4."""
    k: tuple[Count, ...] | None = None
    """Active features per token; by default 8, 16 and 32, on planted activations, which are made of 8, 2, 4 and 8."""
    d: tuple[Count, ...] | None = None
    """Learned values per column; by default 2, 4, 8 and 16, on planted activations 2, 4 and 8."""
    tokens: tuple[Count, ...] | None = None
    """Tokens to train on, each number in a pass of its own; by default a quarter, half and all there are."""
    coder: Literal["omp", "topk"] = "omp"
    """How codes are found, in training and when measured."""
    construction: str = "learned"
    """The supports: learned from data, or by a recipe, as `expander train` takes it."""
    batch: Count = 256
    """Tokens per training step."""
    out: StudyFolder = Path("runs/scaling")
    """The folder for everything that is made; a second run goes on there."""

    lists: ClassVar[dict[str, int]] = {"n": 1, "k": 1, "d": 1, "tokens": 1, "seeds": 0}

    def grid(self, m: int, tokens: int) -> Grid:
        """What is trained on activations of width m of which there are so many."""
        columns, active, degrees = ((1, 2, 4), (2, 4, 8), (2, 4, 8)) if self.synthetic else (
            (2, 4, 8), (8, 16, 32), (2, 4, 8, 16)
        )  # fmt: skip
        found = Grid(
            n=tuple(sorted(self.n or (each * m for each in columns))),
            k=tuple(sorted(self.k or active)),
            d=tuple(sorted(self.d or degrees)),
            tokens=tuple(sorted(self.tokens or (tokens // 4, tokens // 2, tokens))),
        )
        if found.d[-1] > m:
            raise ExpanderError(f"d must be at most the width of the activations, {m}, not {found.d[-1]}.")
        if found.k[-1] > found.n[0]:
            raise ExpanderError(f"k must be at most the fewest features, {found.n[0]}, not {found.k[-1]}.")
        if found.tokens[0] < self.batch:
            raise ExpanderError(f"tokens must be at least one batch, {self.batch}, not {found.tokens[0]}.")
        needed = 1 + len(found.varied) + SPARE
        if found.cells < needed:
            raise ExpanderError(
                f"A law over {len(found.varied)} factors needs at least {needed} cells, not {found.cells}; give more "
                "values of n, k, d or tokens."
            )
        return found

    def passes(self, grid: Grid) -> dict[int, list[TrainConfig]]:
        """The dictionaries of every number of tokens, with all seeds."""
        return {
            tokens: [
                dataclasses.replace(
                    self.dense(n, k, tokens), d=d, seed=seed, coder=self.coder, construction=self.construction
                )
                for seed in self.seeds
                for n in grid.n
                for k in grid.k
                for d in grid.d
            ]
            for tokens in grid.tokens
        }
