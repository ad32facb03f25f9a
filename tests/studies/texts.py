"""A text of short documents and a store of what a tiny model makes of it, which several studies learn from."""

from __future__ import annotations

import json
from pathlib import Path

from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import load_language_model

WORDS = ("river", "gate", "hill", "bridge", "water", "song")


def stores_in(folder: Path, model: Path) -> tuple[Path, Path]:
    """(a store to train on, one of other text): activations of words that come again and again."""
    language_model = load_language_model(str(model))
    for name, documents in (("acts", range(240)), ("held", range(300, 340))):
        lines = [
            json.dumps({"text": f"The {WORDS[n % 6]} of day {n} was {WORDS[n % 5]} and {WORDS[n % 4]}."})
            for n in documents
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        text = TextConfig(text=str(folder / f"{name}.jsonl"), part="all", context=64)
        tokens = 30 * len(documents)
        harvest(language_model, ["layers.1"], tokens=tokens, out=folder / name, text=text)
    return folder / "acts", folder / "held"
