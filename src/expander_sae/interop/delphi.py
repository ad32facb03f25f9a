"""The cache of latents that delphi (EleutherAI's automatic interpretation) explains features from.

A folder named by the hookpoint holds `FIRST_LAST.safetensors` for ranges of features: `locations [firings, 3]` (piece
of text, place in it, feature counted from FIRST), `activations`, and `tokens [pieces, length]`; and `config.json`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from expander_sae.errors import ExpanderError
from expander_sae.features.database import FeatureDatabase
from expander_sae.features.shards import Block, Text, blocks, firing_counts
from expander_sae.files import replace_file, write_json

CONTEXT = 256
"""Tokens of a piece where the text does not say what the model saw at once."""
EXAMPLE = 32
"""Tokens of delphi's examples, into which it cuts the pieces without a rest."""


def write_delphi(database: FeatureDatabase, out: Path) -> Path:
    """Write the cache into the folder of the hookpoint inside `out`, and give that folder.

    delphi knows no tokens that are missing, so the text is cut into pieces of one length, one after the other; a piece
    may hold the end of one document and the beginning of the next.
    """
    if not database.codes:
        raise ExpanderError(
            f"{database.path} has no codes, which delphi's cache is made of; run `expander features` with --keep-codes."
        )
    origin = database.info.origin
    folder = out / str(origin.get("hookpoint", "activations"))
    folder.mkdir(parents=True, exist_ok=True)
    shards = database.shards()
    text = Text.of(shards)
    length = min(max(1, int(origin.get("context", CONTEXT)) // EXAMPLE) * EXAMPLE, text.tokens)
    pieces = text.tokens // length
    tokens = text.token_ids[: pieces * length].reshape(pieces, length)
    splits = 0
    for block in blocks(shards, text, firing_counts(shards)):
        splits += 1
        name = f"{block.first}_{block.first + block.count - 1}.safetensors"
        replace_file(folder / name, save({**_firings(block, length, pieces), "tokens": tokens}))
    write_json(folder / "config.json", {
        "dataset_repo": str(origin.get("text", "")), "dataset_split": str(origin.get("part", "")), "dataset_name": "",
        "dataset_column": str(origin.get("column", "text")), "batch_size": 32, "cache_ctx_len": length,
        "ctx_len": length, "n_tokens": pieces * length, "n_splits": splits, "model_name": str(origin.get("model")),
    })  # fmt: skip
    return folder


def _firings(block: Block, length: int, pieces: int) -> dict[str, NDArray[np.generic]]:
    """Where the features of a block fire; the tokens behind the last whole piece are left out."""
    inside = block.place < pieces * length
    piece, place = np.divmod(block.place[inside], length)
    locations = np.stack([piece, place, block.feature[inside]], axis=1)
    small = locations.max(initial=0) < 2**16
    return {
        "locations": locations.astype(np.uint16 if small else np.uint32),
        "activations": block.value[inside].astype(np.float16),
    }
