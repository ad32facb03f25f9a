"""What a study of supports is asked for, and the dictionaries that are trained for it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from expander_sae.checks import Count, Seed, StudyFolder
from expander_sae.errors import ExpanderError
from expander_sae.studies.data import ComparisonConfig
from expander_sae.supports import Support, SupportError, named
from expander_sae.training import TrainConfig

SPREAD = ("uniform", "balanced", "partitioned", "lines", "greedy", "cyclic")
"""Constructions that spread the rows of a column over all coordinates."""
CLUSTERED, DEGENERATE = "clustered", ("block", "banded", "shared")
"""Constructions that provably lose uniqueness."""
CoderName = Literal["topk", "omp"]
CODERS: tuple[CoderName, ...] = ("topk", "omp")
"""What dictionaries are trained and measured with."""


@dataclass(frozen=True)
class Recipe:
    """A support in the comparison: how it is made, whatever the seed."""

    construction: str
    """With its parameter behind a colon, if it has one, as `xs.TrainConfig` takes it."""
    d: int
    """Values per column."""


@dataclass(frozen=True)
class SupportsConfig(ComparisonConfig):
    """Compare supports at equal d: rows that are spread, in clusters, all the same, in blocks or in bands.

    One pass trains a dictionary on each, with TopK and with orthogonal matching pursuit, and on uniform supports of
    other degrees. Measures FVU, features that never fire, and the supports themselves. Writes a table, the numbers and
    pictures; run it again to go on where it was stopped.
    """

    d: Count = 4
    """Learned values per column, the same on every support."""
    degrees: tuple[int, ...] = (1, 2, 8, 16)
    """Other numbers of values per column, on uniform supports alone: what supports do is compared with what d does."""
    clusters: tuple[int, ...] = (1, 2, 4, 8)
    """Sizes of the clusters of clustered supports, as multiples of d; with 1 the columns of one share all rows."""
    n: Count | None = None
    """Features; by default 4 for every coordinate, where all constructions exist on planted data."""
    k: Count = 8
    """Active features per token."""
    batch: Count = 256
    """Tokens per training step."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Everything is trained once with each."""
    out: StudyFolder = Path("runs/supports")
    """The folder for everything that is made; a second run goes on there."""

    lists: ClassVar[dict[str, int]] = {"degrees": 1, "clusters": 1, "seeds": 0}
    per_coordinate: ClassVar[int] = 4
    planted_passes: ClassVar[int] = 4

    def recipes(self, m: int) -> tuple[list[Recipe], dict[str, str]]:
        """The supports that exist at this width, and of the constructions that do not why not."""
        for name, largest in (("degrees", max(self.degrees)), ("d", self.d)):
            if largest > m:
                raise ExpanderError(f"{name} must be at most the width of the activations, {m}, not {largest}.")
        names = [*SPREAD, *(f"{CLUSTERED}:{size * self.d}" for size in sorted(self.clusters)), *DEGENERATE]
        found, absent = list[Recipe](), dict[str, str]()
        for name in names:
            try:
                for seed in self.seeds:
                    self.support(Recipe(name, self.d), m, seed).rows  # noqa: B018  # greedy finds out while packing
            except SupportError as error:
                absent[name] = str(error)
            else:
                found.append(Recipe(name, self.d))
        degrees = sorted(set(self.degrees) - {self.d})
        return found + [Recipe("uniform", degree) for degree in degrees], absent

    def support(self, recipe: Recipe, m: int, seed: int) -> Support:
        """The support that a recipe gives with this seed."""
        construction, parameters = named(recipe.construction)
        n = self.n or self.per_coordinate * m
        return Support.make(construction, m=m, n=n, d=recipe.d, seed=seed, **parameters)

    def trained(self, base: TrainConfig, recipe: Recipe, coder: CoderName, seed: int) -> TrainConfig:
        """The dictionary that learns on this support with this coder."""
        return dataclasses.replace(base, d=recipe.d, construction=recipe.construction, coder=coder, seed=seed)
