"""What a study of readability is asked for: the dictionaries that are trained, and the coders they are read by."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from expander_sae.checks import Positive, StudyFolder
from expander_sae.coders import OMP, Candidates, Coder, CoordinateDescent, TopK
from expander_sae.errors import ExpanderError
from expander_sae.studies.data import check_degrees
from expander_sae.studies.readability import ReadingConfig
from expander_sae.studies.readable.priced import PricedPursuit
from expander_sae.training import TrainConfig

LASSO_GAP = 3e-2
"""How exactly the lasso is solved; it only chooses features, which are then fitted."""
TOPK, REFIT, FEW, CANDIDATES, WIDE, PURSUIT, EARLY = QUICK = (
    "topk", "refit", "few candidates", "candidates", "wide", "omp", "few picks",
)  # fmt: skip
"""What dictionaries are read by."""
PRICED, LASSO = "priced picks", "lasso"
CODERS = (*QUICK, PRICED, LASSO)
"""What those are read by that were trained to be read, the lasso only of the least degree: it takes its time."""
DENSE, PRUNED, MOVED, RANDOM = "dense", "pruned", "moved", "random"
"""Where the values of columns are: everywhere; left over by pruning; where training moved them; drawn at random."""
READABLE, FIDELITY_OMP, FIDELITY_TOPK = "readable", "fidelity, omp", "fidelity, topk"
"""What dictionaries are trained for, and the coder in the loop where there is a choice."""
BESIDE = (TOPK, PURSUIT)
"""What those are read by that are there for their rows."""


@dataclass(frozen=True)
class Plan:
    """A dictionary, and what it is read by."""

    name: str
    rows: str
    trained: str
    config: TrainConfig
    coders: tuple[str, ...]


@dataclass(frozen=True)
class ReadableConfig(ReadingConfig):
    """Measure what makes features readable: the coder, the degree, the rows or the training objective.

    Trains a dense dictionary and, of each degree, expander ones with the readable objective, with that of fidelity, on
    the rows of that one with TopK, and on random rows with TopK; each is read by several coders at equal k. Needs a
    store and the language model that it is of. Writes a table, the numbers and pictures; run it again to go on where it
    was stopped.
    """

    degrees: tuple[int, ...] = (7, 32)
    """Learned values per column of the expander dictionaries; the dense one is always there."""
    penalty: Positive = 0.3
    """Of the lasso, as a share of what makes the codes of a token zero; this one leaves a few more than 16."""
    out: StudyFolder = Path("runs/readable")
    """The folder for everything that is made; a second run goes on there."""

    synthetic: ClassVar[bool] = False  # type: ignore[misc]  # no option here: planted activations have no text to read
    lists: ClassVar[dict[str, int]] = {"degrees": 1, "seeds": 0}

    def __post_init__(self) -> None:
        if self.store is None:
            raise ExpanderError("Features are read on text; give the folder of a store with --store.")
        super().__post_init__()
        self.coder(LASSO)  # refuses a penalty that cannot be

    def coder(self, name: str) -> Coder:
        """One of CODERS; all but `few picks` take k features per token."""
        k = self.k
        found: dict[str, Callable[[], Coder]] = {
            TOPK: lambda: TopK(k),
            REFIT: lambda: Candidates(k, k),
            FEW: lambda: Candidates(k, k + k // 16),
            CANDIDATES: lambda: Candidates(k, k + k // 4),
            WIDE: lambda: Candidates(k, 2 * k),
            PURSUIT: lambda: OMP(k),
            EARLY: lambda: OMP(max(1, k // 4)),
            PRICED: lambda: PricedPursuit(k),
            LASSO: lambda: CoordinateDescent(self.penalty, gap=LASSO_GAP, k=k, refit=True),
        }
        return found[name]()

    def own(self, plan: Plan) -> str:
        """The coder that a dictionary was trained for."""
        return next(name for name in plan.coders if self.coder(name) == plan.config.make_coder())

    def plans(self, base: TrainConfig, m: int) -> list[Plan]:
        """All of them, with every seed; what starts from another one's rows comes behind it."""
        check_degrees(self.degrees, m)
        return [
            plan
            for seed in self.seeds
            for plan in self._with(dataclasses.replace(base, seed=seed))
        ]  # fmt: skip

    def _with(self, dense: TrainConfig) -> list[Plan]:
        plans = [Plan(DENSE, DENSE, FIDELITY_TOPK, dense, QUICK)]
        for d in sorted(self.degrees):
            coders = CODERS if d == min(self.degrees) else CODERS[:-1]
            expander = dataclasses.replace(dense, d=d)
            random = dataclasses.replace(expander, construction="uniform", coder="topk")
            plans += [
                Plan(f"d={d}", PRUNED, READABLE, dataclasses.replace(expander, objective="readable"), coders),
                Plan(f"d={d}", MOVED, FIDELITY_OMP, expander, QUICK),
                Plan(f"d={d}", RANDOM, FIDELITY_TOPK, random, BESIDE),
            ]
        return plans

    def again(self, plan: Plan, folder: Path) -> Plan:
        """One product trained on the rows that moved under a pursuit, which are in this folder, and stay."""
        config = dataclasses.replace(plan.config, start=str(folder / plan.config.name), coder="topk")
        return Plan(plan.name, MOVED, FIDELITY_TOPK, config, BESIDE)
