"""Checkpoints: everything that the next step depends on, replaced as one.

A sealed folder with `checkpoint.json` and, per dictionary, one tensor file of every process that holds a shard of the
columns; its name holds the hash of its content. What is asked for is read from whichever files hold it, so a run goes
on in another number of shards. No process holds a copy of what it writes or reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from expander_sae.distribution import Group
from expander_sae.errors import ExpanderError
from expander_sae.files import NamedFile, SealedFolder, opened_tensors

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
    tensors: list[list[NamedFile]]


_SEALED = SealedFolder(
    seal="checkpoint.json",
    others=re.compile(r"state-[0-9a-f]{16}\.safetensors"),
    noun="a checkpoint",
    error=CheckpointError,
    format="expander-sae checkpoint",
    version=2,
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


class SavedTensors(Mapping[str, Tensor]):
    """The tensors of a dictionary in a checkpoint, in the files of all shards; each is read when it is asked for."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.paths = shards
        with _readable(shards[0]), opened_tensors(shards[0]) as file:
            self._names = frozenset(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        """What every shard has."""
        with _readable(self.paths[0]), opened_tensors(self.paths[0]) as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def rows(self, name: str, first: int, count: int) -> Tensor:
        """The rows `first` to `first + count` of what lies in the shards one after the other."""
        parts, start = list[Tensor](), 0
        for path in self.paths:
            with _readable(path), opened_tensors(path) as file:
                held = file.get_slice(name)
                here = held.get_shape()[0]
                begin, end = max(first - start, 0), min(first + count - start, here)
                if begin < end:
                    parts.append(held[begin:end])
            start += here
        if start < first + count:
            raise CheckpointError(f"{self.paths[0].parent} has {start} rows of {name}, too few; start the run anew.")
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, IndexError) as error:
        raise CheckpointError(f"{path} is not readable: {error}; copy the whole checkpoint again.") from error


T = TypeVar("T", bound=Mapping[str, Tensor])


@dataclass(frozen=True)
class Checkpoint(Generic[T]):
    """The state of a run between two steps."""

    configs: list[dict[str, Any]]
    step: int
    tokens: int
    cursor: dict[str, Any]
    """Of the source: which batch comes next."""
    tensors: Sequence[T]
    """Of every dictionary, or of the shard of it that this process holds."""

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


def write_checkpoint(run: Path, checkpoint: Checkpoint[dict[str, Tensor]], shards: Group | None = None) -> None:
    """Make the folder of a run hold this checkpoint instead of the one before; all shards write, and the first seals.

    The folder is one that all of them see. A file that some process could not write leaves the checkpoint before.
    """
    shards, folder = shards or Group(), run / FOLDER
    own = [_SEALED.add_tensors(folder, state, _file_of) for state in checkpoint.tensors]
    files = [[_from_numbers(each) for each in shards.numbers(_to_numbers(file))] for file in own]
    if shards.rank == 0:
        description = {
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
            "cursor": checkpoint.cursor,
            "configs": checkpoint.configs,
            "tensors": files,
        }
        _SEALED.replace(folder, description, added=[_file_of(file["sha256"]) for each in files for file in each])
    shards.wait()  # until what the seal does not name is deleted, nobody may write a file of the next one


def read_checkpoint(run: Path) -> Checkpoint[SavedTensors]:
    """The checkpoint in the folder of a run, every byte verified."""
    if not has_checkpoint(run):
        raise CheckpointError(f"{run} holds no checkpoint to resume from; start the run without resuming.")
    folder = run / FOLDER
    content = _SEALED.read(folder)
    tensors = [_verified(folder, shards) for shards in content["tensors"] if shards]
    if not tensors or len(tensors) != len(content["configs"]) or any(WIDTH not in each for each in tensors):
        raise CheckpointError(f"{folder} does not hold the state of every dictionary; start the run anew elsewhere.")
    return Checkpoint(content["configs"], content["step"], content["tokens"], content["cursor"], tensors)


def checkpoint_to_resume(run: Path | None, resume: bool) -> Checkpoint[SavedTensors] | None:
    """The checkpoint to go on from, if that was asked for; refuses to begin anew over one."""
    if run is None:
        return None
    if resume:
        saved = read_checkpoint(run)
        # A process killed right behind a seal leaves what the seal before it named; a finished run writes no other one.
        _SEALED.remove_unnamed(run / FOLDER, [path.name for each in saved.tensors for path in each.paths])
        return saved
    if has_checkpoint(run):
        raise CheckpointError(f"{run} already holds a run; go on with --resume (resume=True) or choose another folder.")
    return None


def _file_of(digest: str) -> str:
    return f"state-{digest[:16]}.safetensors"


def _verified(folder: Path, shards: Sequence[NamedFile]) -> SavedTensors:
    paths = [folder / _file_of(shard["sha256"]) for shard in shards]
    for path, shard in zip(paths, shards, strict=True):
        _SEALED.check_named(path, shard["sha256"], shard["bytes"])
    return SavedTensors(paths)


def _to_numbers(file: NamedFile) -> list[int]:
    """What can be sent."""
    return [file["bytes"], *bytes.fromhex(file["sha256"])]


def _from_numbers(numbers: list[int]) -> NamedFile:
    size, *digest = numbers
    return {"bytes": size, "sha256": bytes(digest).hex()}
