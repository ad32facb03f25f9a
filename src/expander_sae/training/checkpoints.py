"""Checkpoints: everything that the next step depends on, replaced as one.

A folder with `checkpoint.json` and one tensor file per dictionary. The JSON is the commit point: it names every tensor
file, whose name holds the hash of its content, so new files lie beside the old ones until the JSON is renamed into its
place. A process killed at any moment leaves the old checkpoint or the new one. Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.storage.folder import replace_file
from expander_sae.storage.json_fields import checksum
from expander_sae.version import __version__

FORMAT = "expander-sae checkpoint"
SCHEMA_VERSION = 1
FILE = "checkpoint.json"

_TENSOR_FILE = re.compile(r"state-[0-9a-f]{16}\.safetensors(\.tmp)?")


class CheckpointError(ExpanderError):
    """A checkpoint that cannot be written, or from which this run cannot go on."""


class Settings(Protocol):
    """What makes a run the same run."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two steps."""

    configs: list[dict[str, Any]]
    step: int
    tokens: int
    cursor: dict[str, Any]
    """Of the source: which batch comes next."""
    tensors: Sequence[Mapping[str, Tensor]]
    """Of every dictionary."""

    @property
    def width(self) -> int:
        """Of the activations it was trained on."""
        return len(self.tensors[0]["parameters/pre_bias"])

    def check_same(self, configs: Sequence[Settings], folder: Path) -> None:
        """Refuse to go on with other dictionaries, naming the first difference."""
        if len(configs) != len(self.configs):
            raise CheckpointError(
                f"The checkpoint in {folder} is of {len(self.configs)} dictionaries, not of {len(configs)}; "
                "resume with the same ones or start anew in another folder."
            )
        for there, config in zip(self.configs, configs, strict=True):
            here = config.to_json()
            for name in sorted(there.keys() | here.keys()):
                if there.get(name) != here.get(name):
                    raise CheckpointError(
                        f"The checkpoint in {folder} was made with {name}={there.get(name)!r}, not {here.get(name)!r}; "
                        "resume with the same settings or start anew in another folder."
                    )


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Make the folder hold this checkpoint instead of the one before."""
    contents = [to_bytes({name: t.detach().cpu().contiguous() for name, t in state.items()})
                for state in checkpoint.tensors]  # fmt: skip
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    description = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "library_version": __version__,
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "cursor": checkpoint.cursor,
        "configs": checkpoint.configs,
        "tensors": hashes,
    }
    text = json.dumps({**description, "checksum": checksum(description)}, indent=2, allow_nan=False) + "\n"
    files = [_file_of(digest) for digest in hashes]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in zip(files, contents, strict=True):
            replace_file(folder / file, content)
        replace_file(folder / FILE, text.encode())
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}); a checkpoint that it held is still whole."
        ) from error
    for path in folder.iterdir():
        if _TENSOR_FILE.fullmatch(path.name) and path.name not in files:
            with suppress(OSError):  # the checkpoint is whole; what cannot be deleted now is deleted by the next one
                path.unlink()


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder, every byte verified."""
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{folder.parent} holds no checkpoint to resume from; start the run without resuming.")
    try:
        content = json.loads(path.read_bytes())
        sound = content["format"] == FORMAT and content["checksum"] == checksum(content)
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise CheckpointError(f"{path} was edited or damaged; start the run anew in another folder.")
    if content["schema_version"] != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} was written by expander-sae {content['library_version']}, which this version cannot go on from; "
            "use that version."
        )
    tensors = [_read_tensors(folder / _file_of(digest), digest) for digest in content["tensors"]]
    return Checkpoint(content["configs"], content["step"], content["tokens"], content["cursor"], tensors)


def _file_of(digest: str) -> str:
    return f"state-{digest[:16]}.safetensors"


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; copy the whole checkpoint again.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path} was damaged or changed; copy the whole checkpoint again.")
    try:
        return from_bytes(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not readable: {error}; copy the whole checkpoint again.") from error
