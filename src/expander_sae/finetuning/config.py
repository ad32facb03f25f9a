"""What a fine-tuning run is asked for, checked as a whole when it is made."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class FinetuneConfig:
    """How a trained dictionary is fine-tuned."""

    tokens: int = 30_000
    """Tokens to learn from, drawn from all over the first 2 million of the text."""
    batch: int = 1024
    """Tokens per step, padding included; at least as many as the context."""
    learning_rate: float | None = None
    """Adam's step size; by default a share of what training took for such a dictionary, see `default_learning_rate`."""
    fvu_weight: float = 16.0
    """What the fraction of variance unexplained counts beside the KL divergence, 0 for nothing."""
    warm_up: float = 0.1
    """Share of the tokens over which the learning rate rises from zero."""
    decay: float = 0.5
    """Share of the tokens, at the end, over which it falls to zero."""
    betas: tuple[float, float] = (0.9, 0.98)
    """How long Adam remembers gradients and their squares."""
    clip: float = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    seed: int = 0
    """Of which pieces of the text are taken, and of their order."""
    checkpoint_every: int = 10_000
    """Tokens between checkpoints (there is always one on SIGTERM and Ctrl-C)."""
    log_every: int = 4
    """Steps between rows of metrics."""

    def __post_init__(self) -> None:
        for name in ("tokens", "batch", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ExpanderError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.learning_rate is not None and not (0 < self.learning_rate < math.inf):
            raise ExpanderError(f"learning_rate must be above zero and finite, not {self.learning_rate}.")
        if not 0 <= self.fvu_weight < math.inf:
            raise ExpanderError(f"fvu_weight must be at least zero and finite, not {self.fvu_weight}.")
        if not (self.warm_up >= 0 and self.decay >= 0 and self.warm_up + self.decay <= 1):
            raise ExpanderError(
                f"warm_up and decay must be shares that add up to at most 1, not {self.warm_up} and {self.decay}."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ExpanderError(f"betas must be from 0 to below 1, not {self.betas}.")
        if not self.clip > 0:
            raise ExpanderError(f"clip must be above 0, not {self.clip}.")

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON holds it."""
        return {**dataclasses.asdict(self), "betas": list(self.betas)}
