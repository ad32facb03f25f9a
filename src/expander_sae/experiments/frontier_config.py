"""What a frontier is asked for, and the dictionaries that are trained for it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from expander_sae.errors import ExpanderError
from expander_sae.training import TrainConfig, width_matched

_ROWS_OF_METRICS = 60
_CHECKPOINTS = 20


@dataclass(frozen=True)
class FrontierConfig:
    """Activations, the dictionaries to train on them, and what they are measured on."""

    store: Path | None = None
    """The folder that `expander harvest` filled."""
    held_out: Path | None = None
    """A store of other text, on which reconstruction is measured; without one, the language model that the store names
    is loaded and its loss is measured as well, on the held-out part of the store's text."""
    synthetic: bool = False
    """Take sums of planted sparse columns in place of a store: a minute's rehearsal."""
    degrees: tuple[int, ...] = (1, 2, 4, 7, 16, 32, 64)
    """Learned values per column of the expander dictionaries; the dense one is always there."""
    n: int | None = None
    """Features; by default 8 for every coordinate of an activation."""
    k: int = 16
    """Active features per token."""
    tokens: int | None = None
    """Tokens to train on; by default as many as there are, more means several passes."""
    batch: int = 1024
    """Tokens per training step."""
    fine_tune: float = 0.25
    """Share of those tokens that pruned and low-rank dictionaries are trained on once more."""
    sub_vectors: tuple[int, ...] = (4, 16, 64)
    """Coordinates that product quantisation replaces by one index."""
    seeds: tuple[int, ...] = (0,)
    """Everything is trained once with each."""
    evaluation_tokens: int = 20_000
    """Held-out tokens to measure on, at most."""
    out: Path = Path("runs/frontier")
    """The folder for everything that is made; a second run goes on there."""

    def __post_init__(self) -> None:
        if (self.store is None) != self.synthetic:
            raise ExpanderError("Give either the folder of a store with --store or --synthetic, one of the two.")
        if self.synthetic and self.held_out is not None:
            raise ExpanderError("Synthetic data hold their own tokens out; leave --held-out off.")
        for name in ("degrees", "seeds", "sub_vectors"):
            numbers, least = getattr(self, name), 0 if name == "seeds" else 1
            if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < least:
                raise ExpanderError(f"{name} must be different numbers of at least {least}, not {numbers}.")
        for name in ("batch", "k", "evaluation_tokens"):
            if getattr(self, name) < 1:
                raise ExpanderError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.fine_tune <= 1:
            raise ExpanderError(f"fine_tune must be a share of the tokens above 0, at most 1, not {self.fine_tune}.")

    def to_json(self) -> dict[str, object]:
        """What makes one frontier differ from another, as JSON holds it."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "out"}
        lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        return {**fields, **lists, **{name: str(value) for name, value in fields.items() if isinstance(value, Path)}}

    def trained(self, m: int, tokens: int) -> dict[int, "SeedConfigs"]:
        """What is trained with every seed, on activations of width m of which there are so many."""
        if max(self.degrees) >= m:
            raise ExpanderError(f"degrees must be below the width of the activations, {m}; the dense one has that.")
        tokens = self.tokens or tokens
        base = TrainConfig(
            n=self.n or 8 * m,
            k=self.k,
            tokens=tokens,
            batch=self.batch,
            checkpoint_every=max(self.batch, tokens // _CHECKPOINTS),
            log_every=max(1, tokens // self.batch // _ROWS_OF_METRICS),
        )
        return {seed: SeedConfigs.of(dataclasses.replace(base, seed=seed), self.degrees, m) for seed in self.seeds}


@dataclass(frozen=True)
class SeedConfigs:
    """The dictionaries that are trained with one seed, all in one pass with those of the other seeds."""

    dense: TrainConfig
    expanders: list[TrainConfig]
    """One for every degree."""
    matched: list[TrainConfig]
    """Dense ones of fewer columns with as many learned values, coded by TopK."""
    matched_pursuit: list[TrainConfig]
    """The same coded by pursuit, which is fast on expander columns; theirs hold all m coordinates."""

    @classmethod
    def of(cls, dense: TrainConfig, degrees: tuple[int, ...], m: int) -> "SeedConfigs":
        """For these degrees."""
        expanders = [dataclasses.replace(dense, d=d) for d in degrees]
        # Two small degrees may round to the same number of columns.
        columns = dict.fromkeys(width_matched(config, m).n for config in expanders)
        matched = [dataclasses.replace(dense, n=n) for n in columns if n < dense.n]
        return cls(dense, expanders, matched, [dataclasses.replace(each, d=m) for each in matched])

    @property
    def all(self) -> list[TrainConfig]:
        """Every one of them."""
        return [self.dense, *self.expanders, *self.matched, *self.matched_pursuit]
