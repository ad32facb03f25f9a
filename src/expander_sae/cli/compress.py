"""`expander compress`: an autoencoder in fewer bytes, and in fewer values."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import tyro
from rich.table import Table

from expander_sae.activations.texts.files import Part
from expander_sae.autoencoder import Compression, SparseAutoencoder, compress
from expander_sae.checks import AutoencoderFolder, Count, CountOrNone
from expander_sae.console import LiveLines, terminal, waiting
from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    from expander_sae.activations.harvest import TextConfig
    from expander_sae.activations.models import LanguageModel
    from expander_sae.activations.store import Store
    from expander_sae.evaluation.comparison import Compared


@dataclass(frozen=True)
class Compress:
    """Write an autoencoder again with its values in 8 or 4 bits, and tell what that saves and what it costs.

    With --d and --store, a dense one (of this library or imported) becomes an expander dictionary of as many features
    first: its columns keep their largest values, and learn on the store while more and more of them are taken away.
    """

    path: tyro.conf.Positional[Path]
    """The folder of the autoencoder, which stays as it is."""
    out: tyro.conf.Positional[AutoencoderFolder]
    """The folder of the smaller one."""
    values: Literal["int8", "int4"] = "int8"
    """What dictionary and encoder are stored in, with a scale of one byte per column."""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """What the biases are stored in."""
    d: Count | None = None
    """Values that a column keeps, on average; all of them without."""
    store: Path | None = None
    """The folder of a store of activations to learn on."""
    objective: Literal["readable", "fidelity"] = "readable"
    """What is learned: features that read as they did, or that explain more."""
    tokens: Count = 300_000
    """Tokens of the store to learn on."""
    measure: CountOrNone = 8192
    """Tokens of text to measure both autoencoders on, inside the language model that the store is of; 0 for none."""
    text: str | None = None
    """That text, if not the store's."""
    part: Part = "held-out"
    """The part of it."""

    def run(self) -> None:
        """Write, then print what it saves and what it costs."""
        if self.d is None:
            self._check_idle()
            self._tell(compress(self.path, self.out, self.values, getattr(torch, self.dtype)))
            return
        store = self._checked_store()
        stage = self._stage(store) if self.measure else None
        with tempfile.TemporaryDirectory(prefix="expander-") as folder:
            trained = self._trained(store, self.d, Path(folder) / "trained")
            compress(trained, self.out, self.values, getattr(torch, self.dtype))
        self._tell_costs(stage)

    def _check_idle(self) -> None:
        """Refuse what changes nothing without --d."""
        options = ("store", "objective", "tokens", "measure", "text", "part")
        idle = [name for name in options if getattr(self, name) != getattr(Compress, name)]
        if idle:
            raise ExpanderError(f"{' and '.join(idle)} would change nothing without --d; give that, or leave it off.")

    def _checked_store(self) -> Store:
        """The activations to learn on; refuses to learn without them."""
        from expander_sae.activations.store import Store

        if self.store is None:
            raise ExpanderError("A dictionary of fewer values has to learn; give the folder of a --store.")
        return Store.open(self.store)

    def _stage(self, store: Store) -> tuple[LanguageModel, TextConfig]:
        """What both are measured in and on, before any work is done: the model of the store, and text that it reads."""
        from expander_sae.activations.harvest import text_of, text_pieces
        from expander_sae.activations.models import load_language_model, name_of

        if not {"model", "revision", "hookpoint", "text"} <= store.origin.keys():
            raise ExpanderError(
                f"{self.store} does not say which language model and text it comes from, which measuring needs; give "
                "--measure 0."
            )
        text = dataclasses.replace(text_of(store.origin), part=self.part)
        text = text if self.text is None else dataclasses.replace(text, text=self.text)
        with waiting(f"loading {store.origin['model']}"):
            language_model = load_language_model(name_of(store.origin))
        next(text_pieces(language_model, text))
        return language_model, text

    def _trained(self, store: Store, d: int, out: Path) -> Path:
        """The folder of the expander dictionary, its values not rounded yet."""
        from expander_sae.training import compressing, train

        train(store, compressing(self.path, store, d, self.objective, self.tokens), out=out)
        return out

    def _tell(self, result: Compression) -> None:
        """Bytes by part before and after, and the error."""
        console = terminal()
        console.print(_table(result))
        console.print(f"The values changed by {result.error:.3%} of their norm.")

    def _tell_costs(self, stage: tuple[LanguageModel, TextConfig] | None) -> None:
        """Sizes before and after, and what both are worth in the language model."""
        from expander_sae.autoencoder import describe

        sizes = [describe(folder) for folder in (self.path, self.out)]
        table = Table("", "before", "after")
        for column in table.columns[1:]:
            column.justify = "right"
        table.add_row("learned values", *(f"{each.learned_values:,}" for each in sizes))
        table.add_row("bytes on disk", *(f"{each.bytes_on_disk:,}" for each in sizes))
        if stage is not None:
            table.add_section()
            for measure, before, after in self._compared(*stage):
                table.add_row(measure, _number(before), _number(after))
        console = terminal()
        console.print(table)
        console.print(f"Written to {self.out}.")

    def _compared(self, language_model: LanguageModel, text: TextConfig) -> list[Compared]:
        """Fidelity and readability of both."""
        from expander_sae.evaluation.comparison import compared

        before, after = (
            SparseAutoencoder.load(folder, device=language_model.device) for folder in (self.path, self.out)
        )
        before.provenance = {**before.provenance, "activations": after.provenance["activations"]}
        with LiveLines() as lines:
            return compared(before, after, language_model, text, tokens=self.measure, report=lines.update)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _table(result: Compression) -> Table:
    """Bytes by part, a part a line."""
    before, after = result.before, result.after
    table = Table()
    for heading in ("part", f"{before.values} before", f"{after.values} after"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, size in before.bytes_by_part.items():
        table.add_row(part, f"{size:,}", f"{after.bytes_by_part[part]:,}")
    ratio = before.bytes_on_disk / after.bytes_on_disk
    table.add_section()
    table.add_row("bytes on disk", f"{before.bytes_on_disk:,}", f"{after.bytes_on_disk:,}, {ratio:.1f} times smaller")
    return table
