"""Checkpoints: everything that the next step depends on, replaced as one.

A sealed folder with `checkpoint.json` and one tensor file per dictionary, whose name holds the hash of its content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.files import SealedFolder, to_bytes

FOLDER = "checkpoint"
"""The folder of the checkpoint inside that of its run."""
WIDTH = "parameters/pre_bias"
"""The tensor, one of every dictionary, that is as long as an activation."""


class CheckpointError(ExpanderError):
    """A checkpoint that cannot be written, or from which this run cannot go on."""


class _Content(TypedDict):
    configs: list[dict[str, Any]]
    step: int
    tokens: int
    cursor: dict[str, Any]
    tensors: list[str]


_SEALED = SealedFolder(
    seal="checkpoint.json",
    others=re.compile(r"state-[0-9a-f]{16}\.safetensors"),
    noun="a checkpoint",
    error=CheckpointError,
    format="expander-sae checkpoint",
    version=1,
    older=(),
    foreign="is not that of a checkpoint; start the run anew in another folder",
    newer="was written by expander-sae {library}, which this version cannot go on from; use that version",
    unknown="was written by expander-sae {library}, which this version cannot go on from; use that version",
    remedy="what was edited or damaged cannot be resumed, start the run anew in another folder",
    content=_Content,
)


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
        return len(self.tensors[0][WIDTH])

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


def has_checkpoint(run: Path) -> bool:
    """Whether a run left a checkpoint in its folder."""
    return _SEALED.is_at(run / FOLDER)


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Make the folder of a run hold this checkpoint instead of the one before."""
    contents = [to_bytes(state) for state in checkpoint.tensors]
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    description = {
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "cursor": checkpoint.cursor,
        "configs": checkpoint.configs,
        "tensors": hashes,
    }
    _SEALED.replace(run / FOLDER, description, dict(zip(map(_file_of, hashes), contents, strict=True)))


def read_checkpoint(run: Path) -> Checkpoint:
    """The checkpoint in the folder of a run, every byte verified."""
    if not has_checkpoint(run):
        raise CheckpointError(f"{run} holds no checkpoint to resume from; start the run without resuming.")
    folder = run / FOLDER
    content = _SEALED.read(folder)
    tensors = [_read_tensors(folder / _file_of(digest), digest) for digest in content["tensors"]]
    if not tensors or len(tensors) != len(content["configs"]) or any(WIDTH not in each for each in tensors):
        raise CheckpointError(f"{folder} does not hold the state of every dictionary; start the run anew elsewhere.")
    return Checkpoint(content["configs"], content["step"], content["tokens"], content["cursor"], tensors)


def checkpoint_to_resume(run: Path | None, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if that was asked for; refuses to begin anew over one."""
    if run is None:
        return None
    if resume:
        return read_checkpoint(run)
    if has_checkpoint(run):
        raise CheckpointError(f"{run} already holds a run; go on with --resume (resume=True) or choose another folder.")
    return None


def _file_of(digest: str) -> str:
    return f"state-{digest[:16]}.safetensors"


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    data = _SEALED.read_named(path, digest)
    try:
        return from_bytes(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not readable: {error}; copy the whole checkpoint again.") from error
