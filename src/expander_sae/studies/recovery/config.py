"""What a study of recovery is asked for: sizes, dictionaries, coders, and the codes that are planted."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from expander_sae.checks import Count, Positive, Range, Seed, SomeShare, StudyFolder, check_fields, different
from expander_sae.errors import ExpanderError
from expander_sae.supports import constructions

DENSE = "dense"
"""The dictionary without a support: Gaussian columns of all m coordinates."""
VOTING = "voting"
"""The coder that needs coordinates which few features touch."""
CODERS = ("topk", "mp", "omp", "lasso", VOTING)
"""The coders that can be compared, in the order of the pictures."""
STEPS_OF_MP = 4
"""Steps of matching pursuit for every active feature, since it may take a column several times."""
SMALLEST, LARGEST = 0.5, 1.5
"""The ends of uniform coefficients."""
ITERATIONS = 300
"""Iterations of the lasso, at most."""
Shape = Literal["flat", "uniform", "gaussian"]


@dataclass(frozen=True)
class RecoveryConfig:
    """Plant random sparse codes, look for them, and draw where recovery ends, beside what theory says.

    A heat map over k/m and n/m for every dictionary and coder, with the share of tokens whose features are found
    exactly, the line of one half, proved certificates and predicted thresholds. Run it again to go on where it was
    stopped.
    """

    m: Count = 256
    """Width of an activation."""
    d: Count = 7
    """Learned values per column of the expander dictionaries."""
    n_over_m: tuple[Positive, ...] = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    """Features for every coordinate."""
    k_over_m: tuple[Positive, ...] = (
        0.008, 0.012, 0.016, 0.024, 0.032, 0.048, 0.07, 0.1, 0.14, 0.18, 0.22, 0.27, 0.33, 0.4,
    )  # fmt: skip
    """Active features for every coordinate."""
    dictionaries: tuple[str, ...] = ("uniform", "lines", "clustered", DENSE)
    """Constructions of supports (see `xs.Support.make`), and `dense` for Gaussian columns of all m coordinates."""
    coders: tuple[Literal["topk", "mp", "omp", "lasso", "voting"], ...] = ("topk", "mp", "omp", "lasso", "voting")
    """Coders that look for the active features; the k largest codes count as found."""
    columns: Literal["flat", "gaussian"] = "flat"
    """Values of expander columns: of equal size and random sign, or normally distributed."""
    coefficients: Shape = "uniform"
    """Sizes of the planted codes: all 1, between 0.5 and 1.5, or normally distributed."""
    signed: bool = True
    """Plant codes of either sign; otherwise all are positive, and the coders know it."""
    tokens: Count = 32
    """Activations in every cell of a picture."""
    sets: Count = 100
    """Random sets of features for every k on which the exact recovery condition is decided."""
    penalty: SomeShare = 0.01
    """Penalty of the lasso, as a share of the one at which a token's codes become zero."""
    agree: Annotated[int, Range(2)] | None = None
    """Equal votes that the voting decoder needs: by default one more than two columns share, which is safe, or 2 where
    columns are Gaussian."""
    seed: Seed = 0
    """Seed of the supports, the columns and the codes."""
    out: StudyFolder = Path("runs/recovery")
    """The folder for everything that is made; a second run goes on there."""

    def __post_init__(self) -> None:
        check_fields(self)
        different("dictionaries", self.dictionaries, (*constructions(), DENSE))
        different("coders", self.coders, CODERS)
        if self.d > self.m:
            raise ExpanderError(f"d must be at most m = {self.m}, not {self.d}.")
        for name in ("n_over_m", "k_over_m"):
            shares = getattr(self, name)
            if not shares or not all(low < high for low, high in pairwise(shares)):
                raise ExpanderError(f"{name} must be ascending numbers above 0, at least one, not {shares}.")
        if self.active[-1] > self.features[0]:
            raise ExpanderError(
                f"k_over_m goes up to k = {self.active[-1]}, but the smallest dictionary has only {self.features[0]} "
                "features."
            )

    @property
    def features(self) -> list[int]:
        """Every n, ascending; ratios that round to the same one count once."""
        return list(dict.fromkeys(max(1, round(ratio * self.m)) for ratio in self.n_over_m))

    @property
    def active(self) -> list[int]:
        """Every k, ascending; shares that round to the same one count once."""
        return list(dict.fromkeys(max(1, round(share * self.m)) for share in self.k_over_m))

    def coders_of(self, dictionary: str) -> list[str]:
        """The coders that make sense there: votes need coordinates that few features touch."""
        return [coder for coder in self.coders if not (coder == VOTING and dictionary == DENSE)]
