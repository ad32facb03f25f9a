"""What a study of planted codes is asked for."""

from dataclasses import dataclass
from pathlib import Path

from expander_sae.checks import at_least
from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class PlantedConfig:
    """Recover planted sparse codes with TopK, matching pursuit and OMP, beside a dense dictionary.

    No model and no store: a minute at most, and measured anew whenever it is run.
    """

    m: int = 2048
    """Width of an activation."""
    n: int = 16384
    """Number of features."""
    d: int = 7
    """Learned values per column."""
    k: int = 32
    """Active features per token."""
    tokens: int = 256
    """Activations to make and to decode."""
    construction: str = "uniform"
    """How the support is made (see `xs.Support.make`)."""
    noise: float = 0.0
    """Norm of added noise as a share of the activation's norm."""
    seed: int = 0
    """Seed of the support, the values, the codes and the noise."""
    out: Path = Path("runs/planted")
    """The folder of the report."""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ExpanderError(f"k must be between 1 and the number of features, {self.n}, not {self.k}.")
        at_least("tokens", self.tokens, 1)
        at_least("noise", self.noise, 0)
