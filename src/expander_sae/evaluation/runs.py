"""Autoencoders on disk, by the names they have in tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from expander_sae.autoencoder import SparseAutoencoder, is_autoencoder
from expander_sae.errors import ExpanderError


def load_runs(runs: Sequence[Path]) -> dict[str, SparseAutoencoder]:
    """The autoencoders of these folders by name."""
    return {name: SparseAutoencoder.load(folder) for name, folder in run_folders(runs).items()}


def run_folders(runs: Sequence[Path]) -> dict[str, Path]:
    """The folders of the autoencoders in these folders, each of which is one or holds those of several.

    They are called as their folders are, with the folder around it in front where that is not enough.
    """
    if not runs:
        raise ExpanderError("There is nothing to evaluate; give at least one folder that `expander train` wrote.")
    folders = [folder.resolve() for run in runs for folder in _autoencoders(run)]
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
