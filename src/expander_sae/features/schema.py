"""What a feature database holds: its files, and the columns of its two tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from expander_sae.errors import ExpanderError
from expander_sae.files import NamedFile, SealedFolder

if TYPE_CHECKING:
    import pyarrow


class Content(TypedDict):
    """What database.json says from the first moment on; of a complete one it says more."""

    identity: dict[str, Any]
    settings: dict[str, Any]
    encoded: bool
    complete: bool
    files: dict[str, NamedFile]


DATABASE = SealedFolder(
    seal="database.json",
    others=re.compile(r"codes-\d{5,}\.safetensors|features\.parquet|contexts\.parquet"),
    noun="the feature database",
    error=ExpanderError,
    format="expander-sae-features",
    version=1,
    older=(),
    foreign="is not that of a feature database; give a folder that `expander features` wrote",
    newer="was written by a newer expander-sae ({library}); update expander-sae to read it",
    unknown="describes no feature database that this version can read; run `expander features` again in a new folder",
    remedy="delete the folder and run `expander features` again",
    content=Content,
)
FOLDER = "features"
"""The folder of the database inside that of its autoencoder, unless another is named."""
FEATURES_FILE, CONTEXTS_FILE = "features.parquet", "contexts.parquet"
BINS = 32
"""Bins of a feature's histogram."""
RARE = 10
"""A feature that fires on fewer tokens is rare; on none, dead."""
LISTED = 16
"""Entries of a column that are listed, the largest; all where it has no more."""
GROUPS = ("strongest", "q4", "q3", "q2", "q1", "random")
"""How contexts of a feature are chosen, in the order of the table."""


class Column(NamedTuple):
    """A column of a table."""

    type: str
    """Of Arrow: int32, list<float32>, ..."""
    about: str
    """What it holds, as the documentation and the file's own metadata say."""


FEATURES: Mapping[str, Column] = {
    "feature": Column("int32", "number of the feature, from 0; the rows are in this order"),
    "status": Column("string", f"alive, rare (fired on fewer than {RARE} tokens) or dead (on none)"),
    "fired": Column("int64", "tokens on which it fires"),
    "density": Column("float64", "fired, divided by all tokens that are not massive"),
    "documents": Column("int32", "documents in which it fires"),
    "mean": Column("float32", "mean activation where it fires; null if it is dead, as in the next three"),
    "largest": Column("float32", "largest magnitude of an activation: the unit of strengths in steering"),
    "smallest": Column("float32", "smallest magnitude of an activation where it fires"),
    "rank_mean": Column("float32", "mean rank of its pick among those of a token, 0 for the first"),
    "histogram": Column("list<int64>", f"firings by magnitude, in {BINS} bins of equal width from 0 to largest"),
    "token_r2": Column("float32", "share of its variance that the token explains, learned on half of the documents"),
    "purity": Column("float32", "share of the commonest token among its ten strongest contexts, letter case apart"),
    "top_tokens": Column("list<string>", "tokens that it makes likelier, through the model's unembedding"),
    "top_token_logits": Column("list<float32>", "what an activation of 1 adds to their logits, before the last norm"),
    "bottom_tokens": Column("list<string>", "tokens that it makes less likely"),
    "bottom_token_logits": Column("list<float32>", "the same for them"),
    "together": Column("list<int32>", "features that fire on the same tokens more often than by chance"),
    "together_count": Column("list<int64>", "tokens on which both fire, exact"),
    "together_z": Column("list<float32>", "(count - expected) / sqrt(expected), expected by the densities of both"),
    "instead": Column("list<int32>", "features that fire on the same tokens less often than by chance"),
    "instead_count": Column("list<int64>", "tokens on which both fire, exact"),
    "instead_z": Column("list<float32>", "the same as together_z, below zero"),
    "nearest": Column("list<int32>", "features whose columns point the most nearly the same way"),
    "nearest_cosine": Column("list<float32>", "cosine of the two columns"),
    "rows": Column("list<int32>", f"coordinates that its column touches, ascending; the {LISTED} largest if more"),
    "values": Column("list<float32>", "what the column has there; the autoencoder's scale is not divided out"),
    "column_entries": Column("int32", "how many entries of the column are not zero"),
    "atoms": Column(
        "list<int32>", "atoms that the column it is read by is a mixture of, the one that adds most first; null without"
    ),
    "atom_weights": Column(
        "list<float32>", "length that each adds to that column, which is 1 long; negative if opposed"
    ),
}
"""Columns of features.parquet, one row for every feature."""

CONTEXTS: Mapping[str, Column] = {
    "feature": Column("int32", "number of the feature; rows are in the order of feature, group, rank"),
    "group": Column(
        "string",
        "strongest (each of another document), q4 ... q1 (drawn from the quarters of its activations, q4 the highest), "
        "or random (drawn from all its firings)",
    ),
    "rank": Column("int16", "place in the group, from 0"),
    "activation": Column("float32", "of the token that the context was chosen for"),
    "document": Column("int32", "number of the document"),
    "position": Column("int32", "of the chosen token in the document"),
    "peak": Column("int16", "which of the context's tokens is the chosen one, from 0"),
    "token_ids": Column("list<int32>", "the tokens around it, inside the document"),
    "tokens": Column("list<string>", "what each of them adds to the text; null where no tokenizer was at hand"),
    "activations": Column("list<float32>", "of the feature on each of them, 0 where it is silent"),
}
"""Columns of contexts.parquet, one row for every context of a feature."""


def arrow_schema(columns: Mapping[str, Column]) -> pyarrow.Schema:
    """The same columns as Arrow has them, each with what it holds in its metadata."""
    import pyarrow

    def type_of(name: str) -> pyarrow.DataType:
        if name.startswith("list<"):
            return pyarrow.list_(type_of(name.removeprefix("list<").removesuffix(">")))
        return pyarrow.type_for_alias(name)

    return pyarrow.schema(
        [pyarrow.field(name, type_of(column.type), metadata={"about": column.about})
         for name, column in columns.items()]
    )  # fmt: skip
