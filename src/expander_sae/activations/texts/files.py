"""A document and its part of a text; the documents of plain text, JSON lines and Parquet files of any size."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from expander_sae.checks import a_text
from expander_sae.errors import ExpanderError, require

Part = Literal["train", "held-out", "all"]

BLANK_LINE_AFTER = 8_000
"""A text file is cut at its first blank line after so many characters: long files have many documents."""
LINE_AFTER = 16_000
"""Without a blank line it is cut at the end of a line after so many."""

HELD_OUT_ONE_IN = 20
"""Every twentieth document is held out, chosen by its text alone, so a source may grow or change its order."""


@dataclass(frozen=True)
class Document:
    """A text and where it came from."""

    text: str
    source_id: str
    """The place inside the source: a file and line, a row, or the name of what a docstring describes."""


def fingerprint(text: str) -> bytes:
    """Equal for texts that differ only in letter case, punctuation or white space; 32 bytes."""
    return hashlib.sha256("".join(re.findall(r"\w+", text.casefold())).encode(errors="surrogatepass")).digest()


def in_part(text: str, part: Part) -> bool:
    """Whether a document with this text belongs to the part."""
    if part == "all":
        return True
    held_out = int.from_bytes(fingerprint(text)[:8], "big") % HELD_OUT_ONE_IN == 0
    return held_out == (part == "held-out")


def text_files(folder: Path) -> list[Path]:
    """The files under the folder that can be read here, hidden ones left out, in the order of their names."""
    found = [path for path in folder.rglob("*") if path.suffix in READERS and path.is_file()]
    visible = [path for path in found if not any(name.startswith(".") for name in path.relative_to(folder).parts)]
    # Compared part by part and not as the platform writes paths, so that the order is the same everywhere.
    return sorted(visible, key=lambda path: path.relative_to(folder).parts)


def read_file(path: Path, name: str, column: str) -> Iterator[Document]:
    """The documents of one file, which `name` stands for in their source_id; refuses now if it is of another kind."""
    if path.suffix not in READERS:
        raise ExpanderError(f"{path} is not a {', '.join(READERS)} file; save the text as one of these.")
    if path.suffix == ".parquet":
        require("pyarrow")
    return _readable(path, READERS[path.suffix](path, name, column))


def _readable(path: Path, documents: Iterator[Document]) -> Iterator[Document]:
    try:
        yield from documents
    except UnicodeDecodeError as error:
        raise ExpanderError(f"{path} is not UTF-8 text ({error.reason}); convert it to UTF-8 first.") from error
    except OSError as error:
        raise ExpanderError(f"{path} cannot be read ({error.strerror or error}).") from error


def _read_text(path: Path, name: str, column: str) -> Iterator[Document]:
    lines: list[str] = []
    length = number = 0
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            lines.append(line)
            length += len(line)
            if length > LINE_AFTER or (length > BLANK_LINE_AFTER and not line.strip()):
                yield Document("".join(lines).strip(), f"{name}:{number}")
                lines, length, number = [], 0, number + 1
    yield Document("".join(lines).strip(), f"{name}:{number}")


def _read_jsonl(path: Path, name: str, column: str) -> Iterator[Document]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ExpanderError(f"Line {number} of {path} is not JSON ({error}); mend or remove it.") from error
            if not isinstance(row, dict):
                raise ExpanderError(f"Line {number} of {path} is not a JSON object such as {{{column!r}: ...}}.")
            place = f"line {number} of {path}"
            check_column(column, list(row), place)
            yield Document(text_of(row[column], column, place), f"{name}:{number}")


def _read_parquet(path: Path, name: str, column: str) -> Iterator[Document]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            check_column(column, file.schema_arrow.names, str(path))
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield Document(text_of(value, column, f"row {row} of {path}"), f"{name}:{row}")
                    row += 1
    except pyarrow.ArrowException as error:
        raise ExpanderError(f"{path} is not a readable Parquet file: it is damaged or of another kind.") from error


def check_column(column: str, columns: list[str], place: str) -> None:
    """Refuse a column that is not there, naming those that are."""
    if column not in columns:
        raise ExpanderError(
            f"There is no column {column!r} in {place}; its columns are {', '.join(columns) or 'none'}."
        )


def text_of(value: Any, column: str, place: str) -> str:
    """The value if it is a text, the empty text if it is missing."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ExpanderError(
            f"Column {column!r} is not text in {place}, it is {type(value).__name__}; give another one."
        )
    a_text(f"Column {column!r} in {place}", value)
    return value


READERS: dict[str, Callable[[Path, str, str], Iterator[Document]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
"""What reads a file, by the end of its name."""
