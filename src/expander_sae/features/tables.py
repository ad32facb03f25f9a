"""The two Parquet files of a database, written a block of features at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from expander_sae.activations.texts.spelling import Spelling
from expander_sae.features.contexts import Contexts, activations_at, tokens_of
from expander_sae.features.schema import CONTEXTS, FEATURES, GROUPS, Column, arrow_schema
from expander_sae.features.shards import Block, Text

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_GROUP = 4096
"""Contexts that are read together, at the least."""

_BYTES_OF_A_FEATURE, _BYTES_OF_A_TOKEN = 512, 4
"""Of a row of the table of features, and of a token of a context; rather more than they take when packed."""


def bytes_of_tables(features: int, tokens: int) -> int:
    """About what so many features take on disk, with contexts of so many tokens in all."""
    return features * _BYTES_OF_A_FEATURE + tokens * _BYTES_OF_A_TOKEN


@contextmanager
def table_file(path: Path, columns: Mapping[str, Column]) -> Iterator[Any]:
    """A function that adds rows to a Parquet file, which takes its place when the block has ended well."""
    from pyarrow import parquet

    temporary = path.with_name(path.name + ".tmp")
    schema = arrow_schema(columns)
    try:
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            yield lambda table: writer.write_table(table.cast(schema), row_group_size=ROWS_PER_GROUP)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def feature_rows(columns: Mapping[str, Any]) -> pyarrow.Table:
    """Rows of the table of features; columns that are not given are null."""
    import pyarrow

    schema = arrow_schema(FEATURES)
    count = len(columns["feature"])
    arrays = []
    for field in schema:
        given = columns.get(field.name)
        if given is None:
            arrays.append(pyarrow.nulls(count, field.type))
        elif isinstance(given, np.ndarray) and given.ndim == 2:
            listed = _listed(columns, field.name)
            offsets = np.concatenate([[0], np.cumsum(listed.sum(axis=1))]).astype(np.int32)
            values = pyarrow.array(given[listed], field.type.value_type)
            arrays.append(pyarrow.ListArray.from_arrays(offsets, values))
        else:
            masked = isinstance(given, np.ma.MaskedArray)
            values, mask = (given.data, np.ma.getmaskarray(given)) if masked else (given, None)
            arrays.append(pyarrow.array(values, field.type, mask=mask))
    return pyarrow.table(arrays, schema=schema)


_NUMBERS = {
    "together_count": "together", "together_z": "together", "instead_count": "instead", "instead_z": "instead",
    "nearest_cosine": "nearest", "values": "rows", "atom_weights": "atoms",
}  # fmt: skip
"""Columns of lists that go with others, which end where -1 begins."""


def _listed(columns: Mapping[str, Any], name: str) -> NDArray[np.bool_]:
    """Which entries of a matrix its lists hold."""
    numbers = columns[_NUMBERS.get(name, name)]
    is_number = name in _NUMBERS or name in _NUMBERS.values()
    return numbers >= 0 if is_number else np.ones(numbers.shape, dtype=bool)


def context_rows(contexts: Contexts, block: Block, text: Text, spelling: Spelling | None) -> pyarrow.Table:
    """Rows of the table of contexts."""
    import pyarrow

    place, offsets = tokens_of(contexts)
    lengths = np.diff(offsets)
    ids = text.token_ids[place]
    activations = activations_at(block, text.tokens, np.repeat(contexts.feature, lengths), place)
    schema, peak = arrow_schema(CONTEXTS), block.place[contexts.firing]

    def lists(values: Any) -> Any:
        return pyarrow.ListArray.from_arrays(offsets.astype(np.int32), values)

    columns = {
        "feature": block.first + contexts.feature,
        "group": np.array(GROUPS)[contexts.group],
        "rank": contexts.rank,
        "activation": block.value[contexts.firing],
        "document": text.document[peak],
        "position": text.position[peak],
        "peak": (peak - contexts.begin).astype(np.int16),
        "token_ids": lists(ids),
        "activations": lists(activations),
    }
    nulls = pyarrow.nulls(len(lengths), schema.field("tokens").type)
    tokens = nulls if spelling is None else lists(_spelled(ids, offsets, spelling))
    arrays = {name: tokens if name == "tokens" else columns[name] for name in schema.names}
    return pyarrow.table(arrays, schema=schema)


def _spelled(ids: NDArray[np.int32], offsets: NDArray[np.int64], spelling: Spelling) -> pyarrow.Array:
    """The texts of all tokens; those that depend on their neighbours are spelled context by context."""
    import pyarrow

    kinds = np.flatnonzero(np.bincount(ids))
    number = np.zeros(kinds.max(initial=0) + 1, np.int32)
    number[kinds] = np.arange(len(kinds))
    number = number[ids]
    texts = [spelling.alone(int(token)) for token in kinds]
    whole = np.array([spelling.is_whole(int(token)) for token in kinds], dtype=bool)
    if not whole.all():
        known: dict[str, int] = {}
        broken = np.unique(np.searchsorted(offsets, np.flatnonzero(~whole[number]), side="right") - 1)
        for context in broken.tolist():
            here = slice(offsets[context], offsets[context + 1])
            spelled = spelling.of(ids[here].tolist())
            number[here] = [known.setdefault(text, len(kinds) + len(known)) for text in spelled]
        texts += known
    dictionary = pyarrow.array(texts, pyarrow.string())
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(number), dictionary).cast(pyarrow.string())
