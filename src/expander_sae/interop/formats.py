"""The formats of other libraries by name: which one a folder is of, how an autoencoder gets into one and out of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from expander_sae.autoencoder import SparseAutoencoder, is_autoencoder
from expander_sae.coders import MatchingPursuit
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.files import appearing_folder, replace_file, write_json
from expander_sae.interop import checkpoints, dictionary_learning, saelens, saelens_sparse, sparsify
from expander_sae.interop.foreign import Foreign
from expander_sae.interop.plain import Plain
from expander_sae.means import is_out_of_memory

Format = Literal["saelens", "saelens_sparse", "sparsify", "dictionary_learning"]

_WRITERS: dict[Format, Callable[[SparseAutoencoder], dict[str, bytes | dict[str, Any]]]] = {
    "saelens": lambda sae: saelens.files_of(Plain.of(sae)),
    "saelens_sparse": saelens_sparse.files_of,
    "sparsify": lambda sae: sparsify.files_of(Plain.of(sae)),
    "dictionary_learning": lambda sae: dictionary_learning.files_of(Plain.of(sae)),
}
_READERS: tuple[tuple[str, str, Callable[[Foreign], Plain]], ...] = (
    (saelens.CONFIG, saelens.WEIGHTS, saelens.read),
    (sparsify.CONFIG, sparsify.WEIGHTS, sparsify.read),
    (dictionary_learning.CONFIG, dictionary_learning.WEIGHTS, dictionary_learning.read),
)


def export_bytes(sae: SparseAutoencoder, to: Format) -> int:
    """What an exported folder takes, give or take some kilobytes: others hold dictionary and encoder in full."""
    if to == "saelens_sparse":
        return (sae.learned_values + sae.dictionary.learned_values // 2) * sae.pre_bias.element_size()
    matrices = 1 if isinstance(sae.coder, MatchingPursuit) else 2
    return (matrices * sae.n * sae.m + 3 * sae.n + sae.m) * sae.pre_bias.element_size()


def export_to(sae: SparseAutoencoder, to: Format, out: str | PathLike[str]) -> Path:
    """Write a new folder that another library loads, whose codes and reconstructions there are those here."""
    if to not in _WRITERS:
        raise ExpanderError(f"There is no format {to!r}; the formats are {', '.join(_WRITERS)}.")
    folder, needed = Path(out), export_bytes(sae, to)
    free = shutil.disk_usage(next(parent for parent in folder.absolute().parents if parent.is_dir())).free
    if needed > free:
        raise StorageError(f"{folder} needs {needed:,} bytes, and only {free:,} are free there; choose another disk.")
    files = _WRITERS[to](sae)
    with appearing_folder(folder) as work:
        for name, content in files.items():
            if isinstance(content, bytes):
                replace_file(work / name, content)
            else:
                write_json(work / name, content)
    return folder


def import_from(path: str | PathLike[str], k: int | None = None) -> SparseAutoencoder:
    """The autoencoder in a folder of SAELens, sparsify or dictionary_learning, or in a `.pt` file.

    `k`, the features of a token, is for files that do not say it: those of the Expander SAE paper's code.
    """
    foreign = Foreign(Path(path))
    try:
        return _read(foreign, k)
    except ExpanderError as error:
        message = str(error)
        if message.startswith(str(foreign.path)):
            raise
        raise ExpanderError(f"{foreign.path} cannot be imported: {message}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        # Entries of other kinds than its library writes: each reader would have to doubt every one of them.
        raise foreign.error("does not hold what its library writes; copy it again") from error


def _read(foreign: Foreign, k: int | None) -> SparseAutoencoder:
    path = foreign.path
    if path.is_file() and path.suffix == ".pt":
        return checkpoints.read(foreign, k).autoencoder()
    if k is not None:
        raise ExpanderError("Only a .pt file of the Expander SAE paper's code needs k; leave it out.")
    if not path.exists():
        raise foreign.error("does not exist; give the folder that the other library wrote")
    if not path.is_dir():
        raise foreign.error("is a file but no .pt file; give the folder that the other library wrote")
    for config, weights, read in _READERS:
        if (path / config).is_file() and (path / weights).is_file():
            if foreign.json(config).get("architecture") == saelens_sparse.ARCHITECTURE:
                return saelens_sparse.read(foreign)
            return read(foreign).autoencoder()
    if is_autoencoder(path):
        raise foreign.error("is an autoencoder of this library already; use it as it is")
    wanted = "; ".join(f"{config} and {weights}" for config, weights, _ in _READERS)
    there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise foreign.error(f"is of no format that can be imported ({wanted}), it holds {there}; give the folder of one")
