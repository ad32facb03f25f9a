"""What is evaluated: autoencoders by name, read from the folders of runs, and which one is the reference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from expander_sae.autoencoder import SparseAutoencoder, is_autoencoder
from expander_sae.coders import Coder
from expander_sae.dictionaries import DenseDictionary
from expander_sae.errors import ExpanderError

Subjects = Mapping[str, SparseAutoencoder]
"""Autoencoders by the names they have in tables."""


def subjects_of(saes: SparseAutoencoder | Subjects, coder: Coder | None) -> Subjects:
    """Autoencoders by name (a single one is called just that), with another coder if there is one."""
    subjects = {"autoencoder": saes} if isinstance(saes, SparseAutoencoder) else saes
    if not subjects:
        raise ExpanderError("There is nothing to evaluate; give at least one autoencoder.")
    return subjects if coder is None else {name: sae.with_coder(coder) for name, sae in subjects.items()}


def check_reference(subjects: Subjects, reference: str | None) -> None:
    """Refuse a reference that is none of the autoencoders."""
    if reference is not None and reference not in subjects:
        raise ExpanderError(f"The reference {reference!r} is none of the autoencoders ({', '.join(subjects)}).")


def check_width(subjects: Subjects, width: int, which: str) -> None:
    """Refuse autoencoders of another width than that of the activations; `which` says what these are called."""
    for name, sae in subjects.items():
        if sae.m != width:
            raise ExpanderError(
                f"{name} is for activations of width {sae.m}, but {which} are {width} wide; "
                "give the model and the hookpoint that it was trained on."
            )


def default_reference(subjects: Subjects) -> str | None:
    """The one dense autoencoder with the n and k of a sparse one; None if there is no such, or more than one."""
    dense = {name: _size(sae) for name, sae in subjects.items() if isinstance(sae.dictionary, DenseDictionary)}
    sparse = {_size(sae) for name, sae in subjects.items() if name not in dense}
    matching = [name for name, size in dense.items() if size in sparse]
    return matching[0] if len(matching) == 1 else None


def _size(sae: SparseAutoencoder) -> tuple[int, int | None]:
    return sae.n, getattr(sae.coder, "k", None)


def load_runs(runs: Sequence[Path]) -> dict[str, SparseAutoencoder]:
    """The autoencoders of these folders by name."""
    return {name: SparseAutoencoder.load(folder) for name, folder in run_folders(runs).items()}


def run_folders(runs: Sequence[Path]) -> dict[str, Path]:
    """The folders of the autoencoders in these folders, each of which is one or holds those of several.

    They are called as their folders are, with the folder around it in front where that is not enough.
    """
    if not runs:
        raise ExpanderError("There is nothing to evaluate; give at least one folder that `expander train` wrote.")
    folders = [Path(os.path.realpath(folder)) for run in runs for folder in _autoencoders(run)]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExpanderError(f"Two of these autoencoders would both be called {twice[0]}; evaluate them one by one.")
    return dict(zip(names, folders, strict=True))


def _autoencoders(run: Path) -> list[Path]:
    """The folders of autoencoders that a run's folder is or holds."""
    if not run.is_dir():
        raise ExpanderError(f"There is no folder {run}; give one that `expander train` wrote.")
    found = [run] if is_autoencoder(run) else sorted(filter(is_autoencoder, run.iterdir()))
    if not found:
        raise ExpanderError(f"There is no autoencoder in {run}; give a folder that `expander train` wrote.")
    return found
