"""Taking hold of a folder to write a store in: nobody else writes it, and what is there fits or is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from expander_sae.activations.store.manifest import STORE, Manifest, read_manifest
from expander_sae.activations.store.reader import Store
from expander_sae.activations.store.shards import StoreError

if sys.platform != "win32":
    import fcntl


class FolderLock:
    """Keeps other writers out of a folder until released; the system releases it when the process dies."""

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = None
        if sys.platform == "win32":  # which has no locks on folders
            return
        try:
            self._descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StoreError(
                f"{folder} is being written by another process; wait for it, stop it, or choose another folder."
            ) from error
        except OSError:
            # Some network file systems have no locks; there it is up to the user not to harvest twice at once. A folder
            # that cannot be opened is refused by who writes into it.
            self.release()

    def release(self) -> None:
        """Let others write."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_folder(folder: Path) -> None:
    """The folder exists and is one."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; a store is written as a folder, choose another path.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made ({error.strerror}); choose another folder.") from error


def open_manifest(folder: Path, wanted: Manifest, tokens: int | None) -> Manifest:
    """The manifest to go on from: that of the same harvest if one was begun here, else `wanted`, now on disk."""
    try:
        if STORE.is_at(folder):
            manifest = read_manifest(folder)
            _check_same(folder, manifest, wanted)
            _check_unfinished(folder, manifest, tokens)
            Store(folder, manifest)  # checks that every shard is there
        else:
            _check_no_shards(folder)
            manifest = wanted
            STORE.write(folder, manifest.to_json(), {})
        STORE.remove_unnamed(folder, {shard.file for shard in manifest.shards})
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror}); choose another folder.") from error
    return manifest


def _check_same(folder: Path, there: Manifest, here: Manifest) -> None:
    """Refuse to go on with the harvest of something else, naming what differs."""
    names = ("width", "dtype", "precision", "tokens_per_shard")
    sizes = [(name, getattr(there, name), getattr(here, name)) for name in names]
    keys = sorted((there.origin.keys() | here.origin.keys()) - {"precision"})
    origins = [(f"origin {key}", there.origin.get(key), here.origin.get(key)) for key in keys]
    differing = [f"{name} ({old!r} there, {new!r} here)" for name, old, new in sizes + origins if old != new]
    if differing:
        raise StoreError(
            f"{folder} holds another harvest, which differs in {', '.join(differing)}; choose another folder, "
            "or harvest with the same settings."
        )


def _check_unfinished(folder: Path, manifest: Manifest, tokens: int | None) -> None:
    if manifest.complete and (tokens is None or tokens <= manifest.tokens):
        raise StoreError(
            f"{folder} already holds this harvest, complete with {manifest.tokens} tokens; use it, "
            "ask for more tokens than that, or choose another folder."
        )


def _check_no_shards(folder: Path) -> None:
    """A store has its manifest before its first shard, so shards without one are not ours to replace."""
    found = sorted(path.name for path in folder.iterdir() if STORE.others.fullmatch(path.name))
    if found:
        raise StoreError(
            f"{folder} holds {found[0]} but no {STORE.seal}: it is no store, or has lost it; choose another folder."
        )
