"""One name for any source of text: Python's own prose, files, folders, and data sets of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from expander_sae.activations.texts.files import READERS, Document, Part, in_part, read_file, text_files
from expander_sae.activations.texts.huggingface import hub_dataset, is_dataset_folder, local_dataset, pinned_dataset
from expander_sae.activations.texts.python_prose import python_prose
from expander_sae.errors import ExpanderError

PYTHON = "python"
"""The source that needs no download."""

_HUB_NAME = re.compile(r"(?!\.|~)[\w.-]+(/[\w.-]+)?(:[\w.-]+)?(@[\w./-]+)?")


def documents(source: str, *, part: Part = "train", column: str = "text") -> Iterator[Document]:
    """The documents of one part of a source, in an order that is always the same.

    The source is `python`, a .txt, .jsonl or .parquet file, a folder of such files, a folder that save_to_disk() of
    `datasets` wrote, or the name of a data set on the Hugging Face hub (`name`, `name:config`, either with `@revision`
    behind it), which is streamed.
    """
    if part not in get_args(Part):
        raise ExpanderError(f"There is no part {part!r} of a text; the parts are {', '.join(get_args(Part))}.")
    return _parted(source, _open(source, column), part)


def pinned(source: str) -> str:
    """The source by a name that stands for the same text for ever: a data set on the hub gets the commit it is at."""
    return pinned_dataset(source) if _is_on_hub(source) else source


def _is_on_hub(source: str) -> bool:
    """Whether the source is the name of a data set; refuses what is nothing at all."""
    path = Path(source).expanduser()
    if source == PYTHON or path.exists():
        return False
    if path.suffix in READERS or not _HUB_NAME.fullmatch(source):
        raise ExpanderError(
            f"There is no file or folder {source!r}; give a {', '.join(READERS)} file, a folder of them, "
            "the name of a data set on the Hugging Face hub, or python."
        )
    return True


def _open(source: str, column: str) -> Iterator[Document]:
    """All documents of the source; whether it exists is checked now, its content while it is read."""
    if _is_on_hub(source):
        return hub_dataset(source, column)
    if source == PYTHON:
        return python_prose()
    path = Path(source).expanduser()
    if path.is_dir():
        return local_dataset(path, column) if is_dataset_folder(path) else _folder(path, column)
    return read_file(path, path.name, column)


def _folder(folder: Path, column: str) -> Iterator[Document]:
    files = text_files(folder)
    if not files:
        raise ExpanderError(f"The folder {folder} has no {', '.join(READERS)} files; give one that has.")
    return (document for path in files for document in read_file(path, path.relative_to(folder).as_posix(), column))


def _parted(source: str, found: Iterator[Document], part: Part) -> Iterator[Document]:
    """The documents of the part that hold more than white space; refuses if there were none."""
    seen = yielded = 0
    for document in found:
        if document.text.strip():
            seen += 1
            if in_part(document.text, part):
                yielded += 1
                yield document
    if not seen:
        raise ExpanderError(f"There is no text in {source}; give a source that has some.")
    if not yielded:
        raise ExpanderError(
            f"None of the {seen} documents of {source} belongs to the part {part!r} (one in twenty is held out, chosen "
            "by its text); use a source with more documents, or the part 'all'."
        )
