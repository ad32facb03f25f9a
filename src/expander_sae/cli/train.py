"""`expander train`: dictionaries from a store of activations."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from expander_sae.activations.store import Store
from expander_sae.errors import ExpanderError
from expander_sae.training import Run, TrainConfig, joined, train, width_matched


@dataclass(frozen=True)
class Train:
    """Train a dictionary on a store of activations, or several in one pass; continues where it was stopped.

    With `torchrun --nproc-per-node N -m -- expander_sae train ...` every process takes its share of each batch (the
    two dashes keep torchrun from reading the options that follow).
    """

    store: tyro.conf.Positional[Path]
    """The folder that `expander harvest` filled."""
    out: Path
    """The folder for the autoencoder, its metrics and the checkpoint."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    also: tuple[str, ...] = ()
    """Train more on the same batches: another number of values per column, `dense`, or `matched` for a dense dictionary
    with as many learned values as the first one."""
    resume: bool = False
    """Go on from the checkpoint in the folder."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl."""
    device: str | None = None
    """Where to train; by default the GPU if there is one."""
    progress: bool = True
    """Show a live line."""

    def run(self) -> None:
        """Train, then print how each dictionary did."""
        with joined() as group:
            store = Store.open(self.store)
            configs = [self.config, *(self._variant(name, store.width) for name in self.also)]
            runs = train(
                store,
                configs,
                out=self.out,
                resume=self.resume,
                progress=self.progress,
                device=self.device,
                also_log=self.log,
            )
            if group.writes:
                console = Console()
                console.print(_table(runs))
                console.print(f"Written to {self.out}.", highlight=False)

    def _variant(self, name: str, m: int) -> TrainConfig:
        """The config that a word of `also` stands for."""
        if name == "dense":
            return dataclasses.replace(self.config, d=None)
        if name == "matched":
            return width_matched(self.config, m)
        if name.isdecimal():
            return dataclasses.replace(self.config, d=int(name))
        raise ExpanderError(f"--also takes a number of values per column, dense or matched, not {name!r}.")


def _table(runs: list[Run]) -> Table:
    table = Table()
    table.add_column("dictionary", no_wrap=True)
    for heading in ("FVU", "dead", "active", "learned values"):
        table.add_column(heading, justify="right")
    for run in runs:
        last = run.metrics[-1]
        table.add_row(
            run.config.name,
            f"{last['fvu']:.4f}",
            f"{last['dead']:.1%}",
            f"{last['l0']:.1f}",
            f"{run.sae.dictionary.learned_values:,}",
        )
    return table
