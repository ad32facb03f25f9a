"""`expander steer`: what a language model writes with features turned up or down, beside what it writes without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from expander_sae.checks import Count, Seed, Weight, a_feature
from expander_sae.cli.inputs import autoencoder_in, hookpoint_of, language_model_of
from expander_sae.console import terminal
from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    from expander_sae.autoencoder import SparseAutoencoder
    from expander_sae.interventions import Kind, NextToken

Several = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class Steer:
    """Let the model go on from a prompt twice: as it is, and with features turned up or down.

    A strength counts in the feature's own largest activation, which `expander features` finds: --add 12:1.5 adds one
    and a half times as much of feature 12 as the text ever showed, to every token. All options may be given several
    times.
    """

    run_folder: tyro.conf.Positional[Path]
    """The folder of an autoencoder."""
    prompt: str
    """The text to go on from."""
    add: Several = ()
    """FEATURE:STRENGTH, make the feature so much stronger, whether it fires or not."""
    clamp: Several = ()
    """FEATURE:STRENGTH, set the feature to this, whether it fires or not."""
    scale: Several = ()
    """FEATURE:FACTOR, make the feature so many times as strong where it fires."""
    ablate: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """FEATURE, take the feature away where it fires."""
    positions: Annotated[Literal["all", "generated"], tyro.conf.arg(name="from")] = "all"
    """Do this to all tokens, or to those alone that the model writes itself."""
    raw: bool = False
    """Strengths are activations as they are, not multiples of the feature's largest."""
    drop_error: bool = False
    """Put the dictionary's reconstruction in the place of the activations, instead of changing them."""
    tokens: Count = 40
    """Tokens to write."""
    temperature: Weight = 0.0
    """0 always takes the likeliest token."""
    seed: Seed = 0
    """Of what is drawn at a temperature above 0."""
    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub; that of the training by default."""
    hookpoint: str | None = None
    """Where in the model the dictionary belongs; where it was trained by default."""

    def run(self) -> None:
        """Write both texts as they come, then what became likelier and less likely right behind the prompt."""
        from expander_sae.interventions import edit_in_units, steer
        from expander_sae.interventions.steering import prompt_ids

        sae, asked = autoencoder_in(self.run_folder), list(self._asked())
        if self.seed and not self.temperature:
            raise ExpanderError("A seed changes nothing at temperature 0; give a --temperature, or leave it off.")
        if not asked:
            raise ExpanderError("There is nothing to steer; give --add, --clamp, --scale or --ablate.")
        for _, feature, _ in asked:
            a_feature(feature, sae.n)
        units = self._units(sae, [feature for kind, feature, _ in asked if kind in ("add", "clamp")])
        hookpoint = hookpoint_of(sae, self.hookpoint)
        language_model = language_model_of({self.run_folder.name: sae}, self.model)
        length = prompt_ids(language_model, self.prompt).shape[1]
        positions = slice(length, None) if self.positions == "generated" else None
        edits = [
            edit_in_units(kind, feature, strength, units.get(feature, 1.0), positions)
            for kind, feature, strength in asked
        ]
        teller = _Teller(self.prompt)
        steered = steer(
            language_model, {hookpoint: sae.to(language_model.device)}, {hookpoint: edits}, self.prompt,
            tokens=self.tokens, temperature=self.temperature, seed=self.seed, keep_error=not self.drop_error,
            listen=teller,
        )  # fmt: skip
        terminal().print("\n")
        terminal().print(_table(steered.next_tokens))

    def _asked(self) -> Iterator[tuple[Kind, int, float]]:
        """Every edit of the command line: what to do, to which feature, how strongly."""
        pairs: tuple[tuple[Kind, tuple[str, ...]], ...] = (
            ("add", self.add), ("clamp", self.clamp), ("scale", self.scale),
        )  # fmt: skip
        for kind, texts in pairs:
            for text in texts:
                feature, _, strength = text.partition(":")
                try:
                    yield kind, int(feature), float(strength)
                except ValueError as error:
                    raise ExpanderError(
                        f"--{kind} takes FEATURE:STRENGTH, such as 12:1.5, and {text!r} is not."
                    ) from error
        for feature_ in self.ablate:
            yield "ablate", feature_, 0.0

    def _units(self, sae: SparseAutoencoder, features: list[int]) -> dict[int, float]:
        """The largest activation of every feature whose strength counts in it."""
        from expander_sae.evaluation import run_folders
        from expander_sae.features import FeatureDatabase
        from expander_sae.features.schema import DATABASE, FOLDER

        if self.raw or not features:
            return {}
        (folder,) = run_folders([self.run_folder]).values()
        if not DATABASE.is_at(folder / FOLDER):
            raise ExpanderError(
                f"Strengths count in a feature's largest activation, which is not known yet: run `expander features "
                f"{folder}` first, or give --raw for plain numbers."
            )
        database = FeatureDatabase.open(folder)
        database.check(sae)
        largest = database.largest
        return {feature: float(largest[feature]) for feature in features}


class _Teller:
    """Prints both texts as they come, each under its heading."""

    def __init__(self, prompt: str) -> None:
        self._prompt, self._side, self._console = prompt, "", terminal()

    def __call__(self, side: str, text: str) -> None:
        if side != self._side:
            above = "\n\n" if self._side else ""
            heading = "Without:" if side == "without" else "Steered:"
            self._console.print(f"{above}{heading}\n{self._prompt}", end="", soft_wrap=True)
            self._side = side
        self._console.print(text, end="", soft_wrap=True)


def _table(changes: list[NextToken]) -> Table:
    """What became likelier right behind the prompt, and what less likely."""
    table = Table("the next token", title="Right behind the prompt", title_justify="left")
    for heading in ("without", "steered"):
        table.add_column(heading, justify="right")
    for each in changes:
        table.add_row(repr(each.text), f"{each.without:.1%}", f"{each.steered:.1%}")
    return table
