"""Documents from data sets of Hugging Face: a folder on this machine, or streamed from the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from expander_sae.activations.texts.files import Document, check_column, text_of
from expander_sae.errors import ExpanderError, require


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


class HubName(NamedTuple):
    """What the name of a data set on the hub says: `path`, `path:config`, and behind either of them `@revision`."""

    path: str
    config: str | None
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> HubName:
        """The parts of the name."""
        rest, _, revision = name.partition("@")
        path, _, config = rest.partition(":")
        return cls(path, config or None, revision or None)


def hub_dataset(name: str, column: str) -> Iterator[Document]:
    """The rows of the split `train` of a data set on the hub, fetched while they are read."""
    require("datasets")
    import datasets

    path, config, revision = HubName.parse(name)
    with _hub_explained(name):
        found = datasets.load_dataset(path, config, streaming=True, revision=revision)
    return _rows(_split(found, name), name, column)


def pinned_dataset(name: str) -> str:
    """The name with the commit that it stands for now, so that it will always stand for the same rows."""
    require("datasets")
    import huggingface_hub

    path, _, revision = HubName.parse(name)
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return name
    with _hub_explained(name):
        commit = huggingface_hub.dataset_info(path, revision=revision).sha
    return f"{name.partition('@')[0]}@{commit}"


@contextmanager
def _hub_explained(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # network, hub, unknown configs: each raises something else
        raise ExpanderError(
            f"{name} is no file or folder here and cannot be read from the Hugging Face hub ({_reason(error)}); "
            "check the name and the network, and write name:config for a data set with several configs."
        ) from error


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
