"""What the demo is asked for: a model, a layer, and the dictionaries to compare."""

from dataclasses import dataclass
from pathlib import Path

from expander_sae.activations.models import SMOLLM2
from expander_sae.checks import Count, Several, StudyFolder, check_fields
from expander_sae.errors import ExpanderError
from expander_sae.training import TrainConfig, width_matched
from expander_sae.training.config import check_width

ACTIVATIONS, DICTIONARIES = "acts", "dictionaries"
"""The store and the trained dictionaries in the folder of the demo."""
DASHBOARD = "dashboard"
"""The page with every feature, in the folder of the dictionary that is shown."""
DENSE = "dense"
"""The name of the dense dictionary, which the others are compared with."""
_ROWS_OF_METRICS = 60  # points of a curve


@dataclass(frozen=True)
class DemoConfig:
    """Take apart a layer of a real language model with expander and dense dictionaries, and write a report about them.

    Everything lands in one folder; run it again to go on where it was stopped.
    """

    model: str = SMOLLM2
    """smollm2, the folder of a model, or a name on the Hugging Face hub."""
    hookpoint: str = "layers.12"
    """The module whose output the dictionaries take apart."""
    text: str = "python"
    """The text: `python` (no download), a .txt, .jsonl or .parquet file, a folder of them, or a data set's name."""
    context: Count = 256
    """Tokens that the model sees at once, at most."""
    harvest_tokens: Count = 100_000
    """Tokens whose activations are kept."""
    train_tokens: Count = 200_000
    """Tokens to train on; more than were harvested means several passes."""
    evaluation_tokens: Several = 6_000
    """Tokens of held-out text on which the model's loss is measured."""
    degrees: tuple[Count, ...] = (7, 2)
    """Learned values per column of the expander dictionaries; features are shown of the first and of the dense one."""
    n: Count = 4608
    """Features."""
    k: Count = 16
    """Active features per token."""
    batch: Count = 1024
    """Tokens per training step."""
    features: Count = 8
    """Features to show of either, drawn at random among those that fire."""
    contexts: Count = 5
    """Contexts to show of each."""
    out: StudyFolder = Path("runs/demo")
    """The folder for everything that is made, report.html included; a second run goes on there."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.degrees or len(set(self.degrees)) < len(self.degrees):
            raise ExpanderError(f"degrees must be different numbers, at least one, not {self.degrees}.")
        self._train_config(None)  # which checks n and k

    @property
    def first(self) -> str:
        """The name of the expander dictionary that features are shown of."""
        return _name(self.degrees[0])

    def train_configs(self, m: int) -> dict[str, TrainConfig]:
        """The dictionaries for activations of width m, by the names that they have in the report."""
        expanders = {_name(d): self._train_config(d) for d in self.degrees}
        matched = width_matched(expanders[self.first], m)
        for config in expanders.values():
            check_width(config, m)
        return {**expanders, DENSE: self._train_config(None), f"dense n={matched.n}": matched}

    def _train_config(self, d: int | None) -> TrainConfig:
        steps = -(-self.train_tokens // self.batch)
        return TrainConfig(
            n=self.n,
            d=d,
            k=self.k,
            tokens=self.train_tokens,
            batch=self.batch,
            checkpoint_every=max(self.batch, self.train_tokens // 5),
            log_every=max(1, steps // _ROWS_OF_METRICS),
        )


def _name(d: int) -> str:
    """The name of an expander dictionary in the report."""
    return f"expander d={d}"
