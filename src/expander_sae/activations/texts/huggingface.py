"""Documents from data sets of Hugging Face: a folder on this machine, or streamed from the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from expander_sae.activations.optional import require
from expander_sae.activations.texts.document import Document
from expander_sae.activations.texts.files import check_column, text_of
from expander_sae.errors import ExpanderError


def is_dataset_folder(folder: Path) -> bool:
    """Whether save_to_disk() of `datasets` wrote the folder."""
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def local_dataset(folder: Path, column: str) -> Iterator[Document]:
    """The rows of a data set on this machine, of its split `train` if it has several."""
    require("datasets")
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged folder fails in as many ways as there are formats inside it
        raise ExpanderError(f"The data set in {folder} cannot be read ({_reason(error)}); save it again.") from error
    return _rows(_split(found, str(folder)), folder.name, column)


def hub_dataset(name: str, column: str) -> Iterator[Document]:
    """The rows of the split `train` of `name` or `name:config`, fetched while they are read."""
    require("datasets")
    import datasets

    path, _, config = name.partition(":")
    try:
        found = datasets.load_dataset(path, config or None, streaming=True)
    except Exception as error:  # network, hub, unknown configs: each raises something else
        raise ExpanderError(
            f"{name} is no file or folder here and cannot be read from the Hugging Face hub ({_reason(error)}); "
            "check the name and the network, and write name:config for a data set with several configs."
        ) from error
    return _rows(_split(found, name), name, column)


def _split(found: Any, name: str) -> Any:
    """The split `train`, or the only one."""
    if not isinstance(found, Mapping):
        return found
    if "train" in found:
        return found["train"]
    if len(found) == 1:
        return next(iter(found.values()))
    raise ExpanderError(f"{name} has no split 'train', only {', '.join(found)}; save the one you want by itself.")


def _rows(dataset: Any, name: str, column: str) -> Iterator[Document]:
    if dataset.column_names is not None:  # a streamed data set may learn its columns only from its rows
        check_column(column, list(dataset.column_names), name)
        dataset = dataset.select_columns([column])
    return _documents(dataset, name, column)


def _documents(dataset: Any, name: str, column: str) -> Iterator[Document]:
    rows = iter(dataset)
    number = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # the network may go away between any two rows
            raise ExpanderError(f"{name} cannot be read after row {number} ({_reason(error)}).") from error
        check_column(column, list(row), name)
        yield Document(text_of(row[column], column, f"row {number} of {name}"), f"{name}:{number}")
        number += 1


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
