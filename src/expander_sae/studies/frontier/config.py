"""What a frontier is asked for, and the dictionaries that are trained for it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from expander_sae.checks import SomeShare, StudyFolder
from expander_sae.errors import ExpanderError
from expander_sae.studies.data import Data, check_degrees
from expander_sae.studies.readability import ReadingConfig
from expander_sae.training import TrainConfig, width_matched


@dataclass(frozen=True)
class FrontierConfig(ReadingConfig):
    """Train expander dictionaries of every degree in one pass, and compare them with smaller dense ones.

    At equal learned values and at equal bytes: dense dictionaries of fewer columns, of low rank, pruned, in 8, 4 and 2
    bits, and product-quantised. Writes a table, the numbers and pictures; run it again to go on where it was stopped.
    """

    degrees: tuple[int, ...] = (1, 2, 4, 7, 16, 32, 64)
    """Learned values per column of the expander dictionaries; the dense one is always there."""
    fine_tune: SomeShare = 0.25
    """Share of those tokens that pruned and low-rank dictionaries are trained on once more."""
    sub_vectors: tuple[int, ...] = (4, 16, 64)
    """Coordinates that product quantisation replaces by one index."""
    readability: bool = False
    """Measure how readable the features of every dictionary are as well, on a held-out text of the store's model."""
    out: StudyFolder = Path("runs/frontier")
    """The folder for everything that is made; a second run goes on there."""

    lists: ClassVar[dict[str, int]] = {"degrees": 1, "seeds": 0, "sub_vectors": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels and not self.readability:
            raise ExpanderError("Labels are what features are probed for; give --readability with --labels.")

    def trained(self, data: Data) -> dict[int, "SeedConfigs"]:
        """What is trained with every seed on these activations."""
        m = data.width
        check_degrees(self.degrees, m)
        base = self.base(data)
        return {seed: SeedConfigs.of(dataclasses.replace(base, seed=seed), self.degrees, m) for seed in self.seeds}


@dataclass(frozen=True)
class SeedConfigs:
    """The dictionaries that are trained with one seed, all in one pass with those of the other seeds."""

    dense: TrainConfig
    expanders: list[TrainConfig]
    """One for every degree, whose rows move so that it explains most."""
    readable: list[TrainConfig]
    """One for every degree, whose features are to be read."""
    matched: list[TrainConfig]
    """Dense ones of fewer columns with as many learned values, coded by TopK."""
    matched_pursuit: list[TrainConfig]
    """The same coded by pursuit, which is fast on expander columns; theirs hold all m coordinates."""

    @classmethod
    def of(cls, dense: TrainConfig, degrees: tuple[int, ...], m: int) -> "SeedConfigs":
        """For these degrees."""
        expanders = [dataclasses.replace(dense, d=d) for d in degrees]
        readable = [dataclasses.replace(each, objective="readable") for each in expanders]
        # Two small degrees may round to the same number of columns.
        columns = dict.fromkeys(width_matched(config, m).n for config in expanders)
        matched = [dataclasses.replace(dense, n=n) for n in columns if n < dense.n]
        return cls(dense, expanders, readable, matched, [dataclasses.replace(each, d=m) for each in matched])

    @property
    def all(self) -> list[TrainConfig]:
        """Every one of them."""
        return [self.dense, *self.expanders, *self.readable, *self.matched, *self.matched_pursuit]
