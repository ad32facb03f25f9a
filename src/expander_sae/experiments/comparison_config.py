"""What every experiment with trained dictionaries is asked for."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from expander_sae.errors import ExpanderError
from expander_sae.training import TrainConfig

_ROWS_OF_METRICS = 60
_CHECKPOINTS = 20


@dataclass(frozen=True)
class ActivationsConfig:
    """Activations, and what is measured on them."""

    store: Path | None = None
    """The folder that `expander harvest` filled."""
    held_out: Path | None = None
    """A store of other text, on which reconstruction is measured; without one, the language model that the store names
    is loaded and its loss is measured as well, on the held-out part of the store's text."""
    synthetic: bool = False
    """Take sums of planted sparse columns in place of a store: a minute's rehearsal."""
    batch: int = 1024
    """Tokens per training step."""
    seeds: tuple[int, ...] = (0,)
    """Everything is trained once with each."""
    evaluation_tokens: int = 20_000
    """Held-out tokens to measure on, at most."""
    out: Path = Path("runs/comparison")
    """The folder for everything that is made; a second run goes on there."""

    lists: ClassVar[dict[str, int]] = {"seeds": 0}
    """Fields that hold different numbers, and the least of them; None is none yet."""
    counts: ClassVar[tuple[str, ...]] = ("batch", "evaluation_tokens")
    """Fields that are at least 1."""

    def __post_init__(self) -> None:
        if (self.store is None) != self.synthetic:
            raise ExpanderError("Give either the folder of a store with --store or --synthetic, one of the two.")
        if self.synthetic and self.held_out is not None:
            raise ExpanderError("Synthetic data hold their own tokens out; leave --held-out off.")
        for name, least in self.lists.items():
            numbers = getattr(self, name)
            if numbers is not None and (not numbers or len(set(numbers)) < len(numbers) or min(numbers) < least):
                raise ExpanderError(f"{name} must be different numbers of at least {least}, not {numbers}.")
        for name in self.counts:
            if getattr(self, name) < 1:
                raise ExpanderError(f"{name} must be at least 1, not {getattr(self, name)}.")

    def to_json(self) -> dict[str, object]:
        """What makes one experiment differ from another, as JSON holds it."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "out"}
        lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        return {**fields, **lists, **{name: str(value) for name, value in fields.items() if isinstance(value, Path)}}

    def dense(self, n: int, k: int, tokens: int) -> TrainConfig:
        """A dense dictionary that is trained on so many tokens."""
        return TrainConfig(
            n=n,
            k=k,
            tokens=tokens,
            batch=self.batch,
            checkpoint_every=max(self.batch, tokens // _CHECKPOINTS),
            log_every=max(1, tokens // self.batch // _ROWS_OF_METRICS),
        )


@dataclass(frozen=True)
class ComparisonConfig(ActivationsConfig):
    """How dictionaries of one size are trained on the activations."""

    n: int | None = None
    """Features; by default 8 for every coordinate of an activation."""
    k: int = 16
    """Active features per token."""
    tokens: int | None = None
    """Tokens to train on; by default as many as there are, more means several passes."""

    counts: ClassVar[tuple[str, ...]] = (*ActivationsConfig.counts, "k")
    per_coordinate: ClassVar[int] = 8
    """Features for every coordinate where n is not given."""

    def base(self, m: int, tokens: int) -> TrainConfig:
        """The dense dictionary on activations of width m of which there are so many; the others differ from it."""
        return self.dense(self.n or self.per_coordinate * m, self.k, self.tokens or tokens)
