"""The two files of an autoencoder's folder: replaced as one, and checked to the last bit when read.

config.json is the commit point. It names the tensor file, whose name holds the hash of its content, so a new tensor
file lies beside the old one until the new config.json takes the place of the old one in one rename. A process killed at
any moment leaves the old autoencoder or the new one. One process at a time may write a folder; any number may read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from expander_sae.errors import StorageError
from expander_sae.storage.json_fields import Fields, checksum
from expander_sae.version import __version__

FORMAT = "expander-sae"
SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
CONFIG = "config.json"

_TENSOR_FILE = re.compile(r"sae-[0-9a-f]{12}\.safetensors")
_LEFTOVER = re.compile(r"(config\.json|sae-[0-9a-f]{12}\.safetensors)\.tmp")


def write_folder(folder: Path, config: Mapping[str, Any], tensors: bytes) -> None:
    """Make the folder hold this config and these tensors, whatever autoencoder it held before."""
    _check_replaceable(folder)
    digest = hashlib.sha256(tensors).hexdigest()
    file = f"sae-{digest[:12]}.safetensors"
    content = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "library_version": __version__,
        **config,
        "tensors": {"file": file, "sha256": digest, "bytes": len(tensors)},
    }
    text = json.dumps({**content, "checksum": checksum(content)}, indent=2, allow_nan=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / file, tensors)
        replace_file(folder / CONFIG, text.encode())
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written ({error.strerror}); an autoencoder that it held is still whole."
        ) from error
    _remove_unnamed(folder, file)


def read_folder(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The config and the bytes of the tensor file, both verified."""
    config = _read_config(folder)
    while True:
        try:
            return config, _read_tensors(folder, config)
        except StorageError:
            # A save may have replaced the autoencoder between the two reads; then the config has changed.
            current = _read_config(folder)
            if current == config:
                raise
            config = current


def _check_replaceable(folder: Path) -> None:
    """Refuse to write over what is not an autoencoder of ours."""
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; an autoencoder is saved as a folder, choose another path.")
    if (folder / CONFIG).exists():
        try:
            existing = json.loads((folder / CONFIG).read_bytes())
        except (OSError, ValueError, RecursionError):
            existing = None
        if not isinstance(existing, dict) or existing.get("format") != FORMAT:
            raise StorageError(
                f"{folder} has a {CONFIG} that is not of an expander-sae autoencoder, or damaged; "
                "it is not overwritten, choose another path or delete it first."
            )


def replace_file(path: Path, data: bytes) -> None:
    """Put the file in its place in one step, once its content is safely on the disk."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(folder: Path) -> None:
    """Make renames in the folder survive a power cut; Windows offers no way to ask for it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_unnamed(folder: Path, named: str) -> None:
    """Delete tensor files that the config does not name, and what killed saves left behind."""
    for path in folder.iterdir():
        unnamed = _TENSOR_FILE.fullmatch(path.name) and path.name != named
        if unnamed or _LEFTOVER.fullmatch(path.name):
            # The save has succeeded; a file that cannot be deleted now is deleted by the next one.
            with suppress(OSError):
                path.unlink()


def _read_config(folder: Path) -> dict[str, Any]:
    """What config.json says, after its format, version and checksum were found right."""
    _check_folder(folder)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check the file and its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{path} is not readable JSON: it is damaged or cut short, restore the folder from a copy."
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise StorageError(
            f"{path} does not describe an expander-sae autoencoder; only folders that save() wrote can be loaded."
        )
    _check_version(path, config)
    try:
        sound = config.get("checksum") == checksum(config)
    except (ValueError, RecursionError):  # numbers that are not finite, or nesting, such as was never written
        sound = False
    if not sound:
        raise StorageError(
            f"{path} does not match its checksum: it was edited or damaged; restore the folder from a copy."
        )
    return config


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise StorageError(f"{folder} does not exist; give the path of a folder that save() wrote.")
    if not folder.is_dir():
        raise StorageError(f"{folder} is a file, but an autoencoder is a folder with a {CONFIG}; give the folder.")
    if not (folder / CONFIG).is_file():
        foreign = ""
        if (folder / "cfg.json").is_file():
            maker = "SAELens" if (folder / "sae_weights.safetensors").is_file() else "SAELens or sparsify"
            foreign = f" and its cfg.json looks like one of {maker}"
        raise StorageError(f"{folder} has no {CONFIG}{foreign}; only folders that save() wrote can be loaded.")


def _check_version(path: Path, config: Mapping[str, Any]) -> None:
    version, library = config.get("schema_version"), config.get("library_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise StorageError(
            f"{path} was written by a newer version of expander-sae ({library}); update expander-sae to load it."
        )
    if type(version) is not int or version not in READABLE_VERSIONS:
        known = " and ".join(map(str, READABLE_VERSIONS))
        raise StorageError(
            f"{path} has the unknown schema version {version!r}; this version of expander-sae reads {known}."
        )


def _read_tensors(folder: Path, config: Mapping[str, Any]) -> bytes:
    """The bytes of the tensor file, after their number and hash were found right."""
    fields = Fields(config.get("tensors"), f"{folder / CONFIG}: 'tensors'")
    file, digest, size = fields.take("file", str), fields.take("sha256", str), fields.take("bytes", int)
    fields.finish()
    if not _TENSOR_FILE.fullmatch(file) or file != f"sae-{digest[:12]}.safetensors":
        raise StorageError(
            f"{folder / CONFIG} names the tensor file {file!r}, which is not the sae-<hash>.safetensors beside it; "
            "save the autoencoder again."
        )
    path = folder / file
    try:
        if not path.is_file():
            raise StorageError(f"{path} is missing; copy the whole folder again.")
        found = path.stat().st_size
        if found != size:
            raise StorageError(
                f"{path} has {found} bytes instead of {size}: it was cut short or changed; copy it again."
            )
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check the file and its permissions.") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageError(f"{path} does not match its SHA-256: it was damaged or changed; copy it again.")
    return data
