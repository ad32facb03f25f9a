"""A text of forty documents, for tests that run a tiny model over it."""

from __future__ import annotations

from pathlib import Path

from expander_sae.activations.harvest import TextConfig


def write_prose(folder: Path, documents: int = 40) -> TextConfig:
    """Documents of different lengths, the longest longer than a context."""
    lines = [
        f'{{"text": "{"The river and the bridge, number " * (1 + number % 9)}{number}."}}'
        for number in range(documents)
    ]
    (folder / "prose.jsonl").write_text("\n".join(lines))
    return TextConfig(str(folder / "prose.jsonl"), part="all", context=32, tokens_per_batch=128)
