"""What a certificate is asked for."""

from dataclasses import dataclass

from expander_sae.checks import at_least
from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class CertifyConfig:
    """What to certify, and how long to search and to sample."""

    k: tuple[int, ...] = ()
    """Features per token to certify for; by default that of the autoencoder's coder."""
    supports: int = 1000
    """Uniformly random sets of k features to look at."""
    tokens: int = 1000
    """Tokens whose codes to look at."""
    restarts: int = 100
    """How often each search for bad sets begins anew."""
    delta: float = 1e-6
    """The chance of a bad draw that counts as none."""
    tau: float = 0.01
    """Values up to this share of their column's norm are near zero."""
    seed: int = 0
    """Of the samples and the searches."""

    def __post_init__(self) -> None:
        for name in ("supports", "tokens", "restarts"):
            at_least(name, getattr(self, name), 1)
        if any(k < 1 for k in self.k):
            raise ExpanderError(f"Every k must be at least 1, not {min(self.k)}.")
        if not 0 < self.delta < 1:
            raise ExpanderError(f"delta must be between 0 and 1, not {self.delta}.")
        if not 0 <= self.tau < 1:
            raise ExpanderError(f"tau must be from 0 to below 1, not {self.tau}.")
        if not 0 <= self.seed < 2**32:
            raise ExpanderError(f"seed must be between 0 and 2**32 - 1, not {self.seed}.")
