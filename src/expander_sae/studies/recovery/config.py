"""What a study of recovery is asked for: sizes, dictionaries, coders, and the codes that are planted."""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from expander_sae.errors import ExpanderError
from expander_sae.supports import constructions

DENSE = "dense"
"""The dictionary that is no support: Gaussian columns of all m coordinates."""
VOTING = "voting"
CODERS = ("topk", "mp", "omp", "lasso", VOTING)
"""What can be compared, in the order of the pictures."""
Shape = Literal["flat", "uniform", "gaussian"]


@dataclass(frozen=True)
class RecoveryConfig:
    """Dictionaries, how many features, how many of them active, and who has to find them."""

    m: int = 256
    """Width of an activation."""
    d: int = 7
    """Learned values per column of the expander dictionaries."""
    n_over_m: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    """Features for every coordinate."""
    k_over_m: tuple[float, ...] = (
        0.008, 0.012, 0.016, 0.024, 0.032, 0.048, 0.07, 0.1, 0.14, 0.18, 0.22, 0.27, 0.33, 0.4,
    )  # fmt: skip
    """Active features for every coordinate."""
    dictionaries: tuple[str, ...] = ("uniform", "lines", "clustered", DENSE)
    """Constructions of supports (see `xs.Support.make`), and `dense` for Gaussian columns of all m coordinates."""
    coders: tuple[Literal["topk", "mp", "omp", "lasso", "voting"], ...] = ("topk", "mp", "omp", "lasso", "voting")
    """Who looks for the active features; the k largest codes count as found."""
    columns: Literal["flat", "gaussian"] = "flat"
    """Values of expander columns: of equal size and random sign, or normally distributed."""
    coefficients: Shape = "uniform"
    """Sizes of the planted codes: all 1, between 0.5 and 1.5, or normally distributed."""
    signed: bool = True
    """Plant codes of either sign; otherwise all are positive, and the coders know it."""
    tokens: int = 32
    """Activations in every cell of a picture."""
    sets: int = 100
    """Random sets of features for every k on which the exact recovery condition is decided."""
    penalty: float = 0.01
    """Of the lasso, as a share of the one at which a token's codes become zero."""
    agree: int | None = None
    """Equal votes that the voting decoder needs: by default one more than two columns share, which is safe, or 2 where
    columns are Gaussian."""
    seed: int = 0
    """Of the supports, the columns and the codes."""
    out: Path = Path("runs/recovery")
    """The folder for everything that is made; a second run goes on there."""

    def __post_init__(self) -> None:
        self._check_names()
        for name in ("m", "d", "tokens", "sets"):
            if getattr(self, name) < 1:
                raise ExpanderError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.d > self.m:
            raise ExpanderError(f"d must be at most m = {self.m}, not {self.d}.")
        if not 0 < self.penalty <= 1:
            raise ExpanderError(f"penalty must be above 0 and at most 1, not {self.penalty}.")
        if self.agree is not None and self.agree < 2:
            raise ExpanderError(f"agree must be at least 2, not {self.agree}.")
        for name in ("n_over_m", "k_over_m"):
            shares = getattr(self, name)
            if not shares or shares[0] <= 0 or not all(low < high for low, high in pairwise(shares)):
                raise ExpanderError(f"{name} must be ascending numbers above 0, at least one, not {shares}.")
        if self.active[-1] > self.features[0]:
            raise ExpanderError(
                f"k_over_m goes up to k = {self.active[-1]}, but the smallest dictionary has only {self.features[0]} "
                "features."
            )

    def _check_names(self) -> None:
        known = {"dictionaries": (*constructions(), DENSE), "coders": CODERS}
        for name, all_of_them in known.items():
            given = getattr(self, name)
            if not given or len(set(given)) < len(given) or not set(given) <= set(all_of_them):
                raise ExpanderError(f"{name} must be different ones of {', '.join(all_of_them)}, not {given}.")

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

    def to_json(self) -> dict[str, object]:
        """What makes one study differ from another, as JSON holds it."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "out"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
