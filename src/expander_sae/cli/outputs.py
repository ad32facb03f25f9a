"""Where commands may write: not over what they read, nor over the work of another command."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from expander_sae.checks import Makes, mark_in
from expander_sae.cli.holding import hold
from expander_sae.errors import ExpanderError

SEALS = {"config.json": "an autoencoder", "manifest.json": "a store", "database.json": "a feature database",
         "study.json": "a study", "checkpoint.json": "a checkpoint"}  # fmt: skip
"""The file that tells what a folder is, and what that is."""
DEEPEST = 200
"""Folders that may be inside each other."""


def check_outputs(asked: Any) -> None:
    """Refuse a place to write that is a file where a folder must be, or holds or is what the command may not spoil."""
    inputs, outputs = list[Path](), list[tuple[Path, Makes]]()
    for path, makes in _paths(asked):
        if makes is None:
            inputs.append(path)
        else:
            outputs.append((path, makes))
    for path, makes in outputs:
        if len(path.parts) > DEEPEST:
            raise ExpanderError(f"{str(path)[:40]}... goes more than {DEEPEST} folders deep; choose another place.")
        if makes.kind == "a file":
            _check_file(path, makes)
        else:
            _check_folder(path, makes, inputs)
            hold(path)


def _paths(asked: Any) -> Iterator[tuple[Path, Makes | None]]:
    """Every path that the command was given, and whether something is made there."""
    hints = get_type_hints(type(asked), include_extras=True)
    for field in fields(asked):
        value = getattr(asked, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path):
                yield path, mark_in(hints[field.name], Makes)
        if is_dataclass(value):
            yield from _paths(value)


def _check_file(path: Path, makes: Makes) -> None:
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise ExpanderError(f"{path} is {what}; give the name of a file to write.")
    if not makes.parents and not path.absolute().parent.is_dir():
        raise ExpanderError(f"The folder of {path} does not exist; make it first.")
    kind = _kind_of(path.parent)
    if path.exists() and (path.name in SEALS or path.suffix in (".safetensors", ".parquet")):
        raise ExpanderError(f"{path} belongs to {kind or 'what another command wrote'}; give another name.")


def _check_folder(path: Path, makes: Makes, inputs: list[Path]) -> None:
    nearest = next(each for each in (path, *path.absolute().parents) if each.exists() or each.is_symlink())
    if not nearest.is_dir():
        raise ExpanderError(f"{nearest} is not a folder, so {makes.kind} cannot be written to {path}; choose another.")
    kind = _kind_of(path)
    if kind not in (None, makes.kind):
        raise ExpanderError(f"{path} holds {kind}; choose another folder for {makes.kind}.")
    for each in inputs:
        place, read = Path(os.path.realpath(path)), Path(os.path.realpath(each))
        if place == read or (read in place.parents and not makes.inside and _kind_of(each) is not None):
            where = "what is read" if place == read else f"inside {each}, which is read"
            raise ExpanderError(f"{path} is {where}; choose another folder.")


def _kind_of(folder: Path) -> str | None:
    """What a folder of this library or a language model is, by the file that tells."""
    for seal, kind in SEALS.items():
        try:
            content = json.loads((folder / seal).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and "model_type" in content:
            return "a language model"
        if isinstance(content, dict) and ("study" in content or str(content.get("format")).startswith("expander-sae")):
            return kind
    return None
