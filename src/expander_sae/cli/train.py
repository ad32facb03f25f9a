"""`expander train`: dictionaries from a store of activations, or straight from a language model."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.table import Table

from expander_sae.activations.harvest import TextConfig, text_of
from expander_sae.activations.live import WINDOW, LiveActivations
from expander_sae.activations.models import Precision, load_language_model, name_of
from expander_sae.activations.soundness import soundness
from expander_sae.activations.store import Store
from expander_sae.checks import AutoencoderFolder, Count, CountOrNone
from expander_sae.console import terminal
from expander_sae.distribution import Group, starts_again
from expander_sae.errors import ExpanderError
from expander_sae.training import Probe, Run, TrainConfig, has_checkpoint, joined, train, width_matched


@dataclass(frozen=True)
class Live:
    """Activations straight from a language model, in place of a store: nothing is written but the dictionary."""

    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub (name@revision pins it)."""
    hookpoint: str = "layers.12"
    """Module to read; :input behind the name reads what goes into it."""
    layer: int | None = None
    """Layer to read, by number, in place of --hookpoint: what comes out of it, whatever the model calls it."""
    model_precision: Precision = "float32"
    """In which arithmetic the language model runs, for --ce-every too; what bfloat16 saves and costs is what it does in
    `expander harvest --precision bfloat16`."""
    window: Count = WINDOW
    """Tokens that are mixed with each other; two windows are in memory at a time."""
    text: tyro.conf.OmitArgPrefixes[TextConfig] = field(default_factory=TextConfig)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a dictionary on activations, or several in one pass; continues where it was stopped.

    The activations come from a store, or with --model straight from a language model. With `torchrun --nproc-per-node N
    -m -- expander_sae train ...` every process takes its share of each batch (the two dashes keep torchrun from reading
    the options that follow), and with --feature-shards its part of the features.
    """

    store: tyro.conf.Positional[Path | None] = None
    """The folder that `expander harvest` filled; none with --model."""
    out: AutoencoderFolder
    """The folder for the autoencoder, its metrics and the checkpoint."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    live: Annotated[Live, tyro.conf.arg(name="")] = field(default_factory=Live)
    also: tuple[str, ...] = ()
    """Train more on the same batches: another number of values per column, `dense`, or `matched` for a dense dictionary
    with as many learned values as the first one."""
    resume: bool = False
    """Go on from the checkpoint in the folder; under torchrun --max-restarts also without this, if there is one."""
    ce_every: CountOrNone = 0
    """Measure the language model's loss under each dictionary after every so many tokens; 0 for never."""
    ce_tokens: Count = 8192
    """Tokens of held-out text that it is measured on."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl."""
    feature_shards: Count = 1
    """Share the features too: each of this many processes of torchrun holds its part of the columns (coder topk)."""
    device: str | None = None
    """Where to train; by default the GPU if there is one."""
    progress: bool = True
    """Show a live line."""

    def run(self) -> None:
        """Train, then print how each dictionary did."""
        self._check()
        with joined() as group:
            source = self._source()
            configs = [self.config, *(self._variant(name, source.width) for name in self.also)]
            runs = train(
                source,
                configs,
                out=self.out,
                resume=self.resume or (starts_again() and has_checkpoint(self.out)),
                progress=self.progress,
                device=self.device,
                also_log=self.log,
                probe=self._probe(source, group) if self.ce_every else None,
                probe_every=self.ce_every or 1,
                feature_shards=self.feature_shards,
            )
            if group.writes:
                console = terminal()
                console.print(_table(runs))
                if isinstance(source, LiveActivations):
                    console.print(f"Tokens with a norm above {source.massive_above:.4g} were left out.")
                console.print(f"Written to {self.out}.")

    def _check(self) -> None:
        """Refuse what contradicts itself before anything is loaded."""
        if (self.store is None) == (self.live.model is None):
            raise ExpanderError("Give either the folder of a store to train on or --model NAME, one of the two.")
        if self.store is not None and self.live != Live():
            raise ExpanderError(
                "A store has its hookpoint and its text already; leave --hookpoint, --layer, --model-precision, "
                "--window and the options of the text off, or train with --model."
            )
        idle = self.config.idle
        if idle:
            raise ExpanderError(
                f"{' and '.join(idle)} would change nothing under {self.config.coding} with these rows; leave off what "
                "does nothing."
            )
        if self.ce_tokens != Train.ce_tokens and not self.ce_every:
            raise ExpanderError("ce_tokens would change nothing without --ce-every; give that, or leave it off.")

    def _source(self) -> Store | LiveActivations:
        """What to train on."""
        live, config = self.live, self.config
        if self.store is not None or live.model is None:
            return Store.open(self.store or "")
        language_model = load_language_model(live.model, dtype=getattr(torch, live.model_precision), device=self.device)
        if warning := soundness(language_model, live.text).warning:
            terminal().print(warning, style="bold red", soft_wrap=True)
        hookpoint = live.hookpoint if live.layer is None else f"layers.{live.layer}"
        return LiveActivations(
            language_model, hookpoint, live.text, batch=config.batch, seed=config.shuffle_seed, window=live.window
        )

    def _probe(self, source: Store | LiveActivations, group: Group) -> Probe:
        """What measures the language model's loss on text that training does not see."""
        from expander_sae.evaluation import LossProbe

        if not group.writes:
            return lambda sae: {}  # only the first process measures; the others need no model for it
        origin = source.origin
        if not {"model", "revision", "hookpoint", "text"} <= origin.keys():
            raise ExpanderError(
                f"{self.store} does not say which language model and text it comes from, which --ce-every needs; leave "
                "it off."
            )
        if isinstance(source, Store):
            language_model = load_language_model(name_of(origin), device=self.device)
        else:
            language_model = source.language_model
        text = dataclasses.replace(text_of(origin), part="held-out")
        above = source.massive_above
        return LossProbe(language_model, origin["hookpoint"], text, self.ce_tokens, massive_above=above)

    def _variant(self, name: str, m: int) -> TrainConfig:
        """The config that a word of `also` stands for."""
        if name == "dense":
            return dataclasses.replace(
                self.config, d=None, objective=None, atoms=None, atoms_from=None, columns_from=None
            )
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
