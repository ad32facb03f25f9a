"""The commands, a line each, in the order and under the headings of `expander --help`.

`expander NAME` is the class `Name` of the file `cli/name.py`, or its function `main`, imported only when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from expander_sae.version import __version__

GROUPS: dict[str, dict[str, str]] = {
    "Get a model and its activations": {
        "model": "fetch a language model, and see that it is sound",
        "harvest": "keep a model's activations on disk; goes on after a kill",
    },
    "Train": {
        "train": "train dictionaries on activations, several in one pass",
        "finetune": "teach one what the model's own predictions need of it",
        "cut": "fewer values per column out of more, without training",
        "grow": "many more features out of a dense dictionary's columns",
    },
    "Look and measure": {
        "eval": "what a dictionary loses, and what a model loses by it",
        "features": "where every feature fires, with what, and what it promotes",
        "quality": "what the features of dictionaries tell a reader",
        "dashboard": "a page with every feature, to open in a browser",
        "view": "the same page with the model behind it: type, see, steer",
        "steer": "let the model write with features turned up or down",
        "attribute": "which features a prediction rests on",
        "certify": "what is proved about a dictionary, refuted, or measured",
    },
    "Studies": {
        "demo": "four dictionaries for a layer of a real model, one report",
        "study": "one question, answered: frontier, supports, recovery, ...",
        "bench": "speed, size and memory against others, on this machine",
    },
    "Files": {
        "info": "what an autoencoder on disk is",
        "compress": "an autoencoder in fewer bytes",
        "export": "an autoencoder as another library loads it",
        "import": "an autoencoder out of another library's folder",
        "push": "autoencoders, or a dashboard, to the Hugging Face hub",
        "pull": "an autoencoder from there",
    },
}

NAMES = [name for group in GROUPS.values() for name in group]


def run(name: str, arguments: Sequence[str]) -> None:
    """Do what a command is asked to do: its class says by its fields what can be asked, its `main` reads it itself."""
    module = import_module(f"expander_sae.cli.{name}")
    if hasattr(module, "main"):
        module.main(arguments)
    else:
        from expander_sae.cli.asking import asked_for

        asked_for(getattr(module, name.capitalize()), f"expander {name}", arguments).run()


def overview() -> str:
    """What `expander --help` prints: every command with what it is for."""
    width = max(map(len, NAMES))
    lines = [
        "usage: expander COMMAND ...",
        "",
        f"expander-sae {__version__}: sparse autoencoders whose dictionary columns touch d",
        "coordinates, not all m of them. Each command explains itself:",
        "expander COMMAND --help",
    ]
    for heading, group in GROUPS.items():
        lines += ["", heading, *(f"  • {name:{width}}  {what}" for name, what in group.items())]
    return "\n".join(lines)
