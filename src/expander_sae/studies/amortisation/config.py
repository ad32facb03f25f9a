"""What a study of amortisation is asked for, and the dictionaries that are trained for it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from expander_sae.checks import Count, Positive, Seed, StudyFolder
from expander_sae.coders import OMP, Coder, CoordinateDescent, MatchingPursuit, TopK
from expander_sae.errors import ExpanderError
from expander_sae.studies.data import ComparisonConfig, check_degrees
from expander_sae.training import TrainConfig, width_matched

LoopName = Literal["topk", "omp"]
LOOPS: tuple[LoopName, ...] = ("topk", "omp")
"""What dictionaries are trained with."""
MLP = "mlp"
CODERS = ("topk", MLP, "mp", "omp", "lasso")
"""What they are measured under."""
LASSO_GAP = 1e-2
"""How exactly the lasso is solved; it only chooses features, which are then fitted."""


@dataclass(frozen=True)
class Plan:
    """A dictionary and what it was trained with."""

    name: str
    loop: LoopName
    config: TrainConfig

    @property
    def coders(self) -> tuple[str, ...]:
        """What it is measured under: columns learned under a pursuit have unit norm and no encoder for TopK."""
        return CODERS if self.loop == "topk" else CODERS[1:]


@dataclass(frozen=True)
class AmortisationConfig(ComparisonConfig):
    """Measure how much of what small dictionaries lose is the encoder's.

    One pass trains expander dictionaries, dense ones of as few values, and the dense one, with TopK and with orthogonal
    matching pursuit; each is measured under TopK, an MLP encoder trained for it, two pursuits and the lasso at equal
    k. Writes a table, the numbers and pictures; run it again to go on where it was stopped.
    """

    degrees: tuple[int, ...] = (2, 4, 8)
    """Learned values per column of the expander dictionaries."""
    construction: str = "learned"
    """Their supports: learned from data, or by a recipe, as `expander train` takes it."""
    penalty: Positive = 0.1
    """Of the lasso, as a share of what makes the codes of a token zero."""
    hidden: Count = 256
    """Hidden units of the MLP encoders, beside which they have a linear path."""
    mlp_tokens: Count | None = None
    """Tokens that every MLP encoder learns from; by default as many as the dictionaries."""
    n: Count | None = None
    """Features; by default 4 for every coordinate of an activation."""
    k: Count = 8
    """Active features per token, under every coder."""
    batch: Count = 256
    """Tokens per training step."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Everything is trained once with each."""
    out: StudyFolder = Path("runs/amortisation")
    """The folder for everything that is made; a second run goes on there."""

    lists: ClassVar[dict[str, int]] = {"degrees": 1, "seeds": 0}
    per_coordinate: ClassVar[int] = 4
    planted_passes: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.coder("lasso")  # refuses a penalty that cannot be
        if self.mlp_tokens is not None and self.mlp_tokens < self.batch:
            raise ExpanderError(f"mlp_tokens must be at least one batch of {self.batch}, not {self.mlp_tokens}.")

    def coder(self, name: str) -> Coder:
        """One of CODERS that need no training, with as many features per token as the others."""
        if name == "lasso":
            return CoordinateDescent(self.penalty, gap=LASSO_GAP, k=self.k, refit=True)
        makers: dict[str, Callable[..., Coder]] = {"topk": TopK, "mp": MatchingPursuit, "omp": OMP}
        return makers[name](k=self.k)

    def plans(self, base: TrainConfig, m: int) -> list[Plan]:
        """Expander dictionaries, dense ones of as few values, and the dense one, with every seed and both loops."""
        check_degrees(self.degrees, m)
        return [
            plan
            for seed in self.seeds
            for loop in LOOPS
            for plan in self._with(dataclasses.replace(base, seed=seed), loop, m)
        ]

    def _with(self, dense: TrainConfig, loop: LoopName, m: int) -> list[Plan]:
        sparse = [
            dataclasses.replace(dense, d=d, coder=loop, construction=self.construction) for d in sorted(self.degrees)
        ]
        columns = dict.fromkeys(width_matched(each, m).n for each in sparse)
        full = {n: dataclasses.replace(dense, n=n, coder=loop) for n in (dense.n, *columns)}
        if loop == "omp":  # fast on expander columns; these hold all m coordinates, as any recipe gives them
            full = {n: dataclasses.replace(each, d=m, construction="uniform") for n, each in full.items()}
        return [
            Plan("dense", loop, full[dense.n]),
            *(Plan(f"expander d={each.d}", loop, each) for each in sparse),
            *(Plan(f"dense n={n}", loop, full[n]) for n in columns if n < dense.n),
        ]
