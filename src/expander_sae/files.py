"""Files: replaced in one step, and folders that one JSON file seals and describes.

The seal is the commit point. It names every other file of its folder, so new files lie beside the old ones until the
new seal takes the place of the old one in one rename. A process killed at any moment leaves the old content or the new
one. One process at a time may write a folder; any number may read it. Nothing on disk can run code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from expander_sae.errors import ExpanderError, StorageError
from expander_sae.means import is_out_of_memory
from expander_sae.version import __version__

Data = bytes | Iterable[bytes | memoryview]
"""What a file is to hold; what does not fit into memory once more comes in pieces."""


def replace_file(path: Path, data: Data) -> None:
    """Put the file in its place in one step, once its content is safely on the disk; never in that of a device."""
    if path.exists() and not path.is_file():
        raise ExpanderError(f"{path} is no file, and is not replaced by one; give another name.")
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            for piece in (data,) if isinstance(data, bytes) else data:
                file.write(piece)
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


@contextmanager
def appearing_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes its name in one step when the block ends well, and else was never there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} exists and is not empty; choose another path or delete it first.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            filled = Path(work) / folder.name
            filled.mkdir()
            yield filled
            if folder.is_dir():
                folder.rmdir()
            filled.rename(folder)
            _sync_directory(folder.parent)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}); nothing of it was kept.") from error


def json_text(content: object) -> str:
    """The JSON text of all files of this library: indented, without NaN and infinity, which JSON does not know."""
    try:
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise ExpanderError(
            "A number came out that is not finite, which no file holds; what led to it, such as a rate, is too large."
        ) from error


def write_json(path: Path, content: object) -> None:
    """Put the content into a JSON file in one step."""
    replace_file(path, json_text(content).encode())


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a safetensors file."""
    return b"".join(pieces_of(tensors))


def write_checked_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Put tensors, and strings about them, into a safetensors file in one step, with a checksum of all of it."""
    told = {**(about or {}), "checksum": _checksum_of(tensors, about or {})}
    replace_file(path, pieces_of(tensors, told))


@contextmanager
def opened_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped into memory; where it cannot be, for want of descriptors, a sentence says so."""
    try:
        mapped = safe_open(path, framework="pt")
    except RuntimeError as error:  # torch's, which safetensors hands on; its own and the system's are others
        if is_out_of_memory(error):
            raise
        raise ExpanderError(f"{path} cannot be opened: {str(error).rpartition('mode: ')[2]}.") from error
    with mapped as file:
        yield file


def read_checked_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_checked_tensors` wrote, without the checksum; ValueError if it is not that."""
    try:
        with opened_tensors(path) as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file") from error
    if about.pop("checksum", None) != _checksum_of(tensors, about):
        raise ValueError(f"{path} does not match its checksum")
    return tensors, about


def _checksum_of(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of a safetensors file of these, which one way of writing it alone gives."""
    found = hashlib.sha256()
    for piece in pieces_of(tensors, dict(sorted(about.items()))):
        found.update(piece)
    return found.hexdigest()


_TYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.uint16: "U16",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
    torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64",
}  # fmt: skip
"""What safetensors calls them, in the reverse of the order in which tensors stand in a file."""


def pieces_of(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """The content of a safetensors file, `about` as its metadata, one tensor at a time and without a copy of any.

    (Those are copied, one at a time, that are not contiguous or not in this memory.)
    """
    order, header, end = list(_TYPES), dict[str, Any](), 0
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name))
    for name in names:
        start, end = end, end + tensors[name].nbytes
        tensor: dict[str, Any] = {"dtype": _TYPES[tensors[name].dtype], "shape": list(tensors[name].shape)}
        header[name] = {**tensor, "data_offsets": [start, end]}
    if about is not None:
        header["__metadata__"] = dict(about)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        here = tensors[name].detach().cpu().contiguous()
        yield here.reshape(-1).view(torch.uint8).numpy().data


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a JSON file, however it is laid out, without its own entry `checksum`."""
    others = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(others, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Put the content into a JSON file in one step, with a checksum of it and the file's name for `read_checked`."""
    write_json(path, {**content, "checksum": _checksum_at(path, content)})


def read_checked(path: Path) -> dict[str, Any]:
    """What `write_checked` wrote, without the checksum; ValueError or RecursionError if it is not that."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or content.pop("checksum", None) != _checksum_at(path, content):
        raise ValueError(f"{path} does not match its checksum")
    return content


def _checksum_at(path: Path, content: Mapping[str, Any]) -> str:
    """Another one also where a sound file took the place of another."""
    return checksum({"file": path.name, "content": json.loads(json_text(content))})


def check_json(value: object, name: str) -> None:
    """Refuse what JSON would change or cannot hold, naming the entry."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise StorageError(f"{name} has the key {key!r}, but a file holds only keys that are strings.")
            check_json(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            check_json(entry, f"{name}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise StorageError(f"{name} is {value}, but a file holds only finite numbers; leave it out or use None.")
    elif not (value is None or isinstance(value, str | int | float)):
        kind = type(value).__name__
        raise StorageError(
            f"{name} is a {kind}, but a file holds only strings, numbers, booleans, None, lists and dictionaries."
        )


def conforms(value: object, kind: Any) -> bool:
    """Whether JSON content is of a type: plain, a list, a mapping, a union, or a TypedDict or dataclass of such."""
    parts = get_args(kind)
    if kind is Any:
        return True
    if get_origin(kind) in (Union, UnionType):
        return any(conforms(value, part) for part in parts)
    if is_typeddict(kind) or is_dataclass(kind):
        hints = get_type_hints(kind)
        return isinstance(value, dict) and all(name in value and conforms(value[name], hints[name]) for name in hints)
    if get_origin(kind) in (dict, Mapping):
        return isinstance(value, dict) and all(conforms(entry, parts[1]) for entry in value.values())
    if get_origin(kind) is list:
        return isinstance(value, list) and all(conforms(entry, parts[0]) for entry in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind or (value is None and kind is NoneType)


class NamedFile(TypedDict):
    """What a seal says of a file."""

    bytes: int
    sha256: str


def named_file(pieces: Iterable[bytes | memoryview]) -> NamedFile:
    """What a seal says of the file that these pieces make."""
    found, size = hashlib.sha256(), 0
    for piece in pieces:
        found.update(piece)
        size += len(piece)
    return {"bytes": size, "sha256": found.hexdigest()}


@dataclass(frozen=True)
class SealedFolder:
    """A format of folders: a JSON file, the seal, and the files that it names; what is said when one is not as it was.

    The last four are ends of sentences that begin with the path of the seal; `{library}` and `{version}` stand for what
    the file says about its writer.
    """

    seal: str
    """The name of the JSON file."""
    others: re.Pattern[str]
    """The names of the other files."""
    noun: str
    """What such a folder holds."""
    error: type[ExpanderError]
    format: str
    version: int
    """The schema version that is written."""
    older: tuple[int, ...]
    """Schema versions that can be read too."""
    foreign: str
    """What is said of a file of another format."""
    newer: str
    """What is said of a file of a later schema version."""
    unknown: str
    """What is said of a file of a schema version that there never was."""
    remedy: str
    """What to do about a file that was edited or damaged."""
    content: Any = Any
    """The type of what the seal says, checked when it is read, as far as its reader does not check more."""

    def is_at(self, folder: Path) -> bool:
        """Whether the folder holds such content."""
        return (folder / self.seal).is_file()

    def write(self, folder: Path, content: Mapping[str, Any], files: Mapping[str, Data]) -> None:
        """Write new files, and then the seal that names them."""
        for name, data in files.items():
            replace_file(folder / name, data)
        about = {"format": self.format, "schema_version": self.version, "library_version": __version__, **content}
        write_json(folder / self.seal, {**about, "checksum": checksum(about)})

    def add_tensors(self, folder: Path, tensors: Mapping[str, Tensor], name_of: Callable[[str], str]) -> NamedFile:
        """Put a safetensors file, which its SHA-256 names, beside those that the seal names, for the next one to name.

        No copy of the tensors is made.
        """
        told = named_file(pieces_of(tensors))
        with self._written(folder):
            replace_file(folder / name_of(told["sha256"]), pieces_of(tensors))
        return told

    def replace(self, folder: Path, content: Mapping[str, Any], added: Collection[str]) -> None:
        """Make the folder hold this, with the files that were added, and nothing of what it held before."""
        with self._written(folder):
            self.write(folder, content, {})
        self.remove_unnamed(folder, added)

    @contextmanager
    def _written(self, folder: Path) -> Iterator[None]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise self.error(
                f"{folder} cannot be written ({error.strerror}); {self.noun} that it held is still whole."
            ) from error

    def remove_unnamed(self, folder: Path, named: Collection[str]) -> None:
        """Delete files that the seal does not name, and what killed processes left behind."""
        for path in folder.iterdir():
            name, is_leftover = path.name.removesuffix(".tmp"), path.name.endswith(".tmp")
            if (self.others.fullmatch(name) and path.name not in named) or (is_leftover and name == self.seal):
                # The folder is whole; a file that cannot be deleted now is deleted by the next writer.
                with suppress(OSError):
                    path.unlink()

    def read(self, folder: Path) -> dict[str, Any]:
        """What the seal says, after its format, version and checksum were found right."""
        path = folder / self.seal
        try:
            content = json.loads(self.read_bytes(path).decode())
        except (ValueError, RecursionError) as error:
            raise self.error(f"{path} is not readable JSON: it is damaged or cut short; {self.remedy}.") from error
        if not isinstance(content, dict) or content.get("format") != self.format:
            raise self.error(f"{path} {self.foreign}.")
        version, library = content.get("schema_version"), content.get("library_version")
        if type(version) is not int or version not in (self.version, *self.older):
            sentence = self.newer if type(version) is int and version > self.version else self.unknown
            raise self.error(f"{path} {sentence.format(version=repr(version), library=library)}.")
        try:
            sound = content.get("checksum") == checksum(content)
        except (ValueError, RecursionError):  # numbers that are not finite, or nesting, such as was never written
            sound = False
        if not sound:
            raise self.error(f"{path} does not match its checksum: it was edited or damaged; {self.remedy}.")
        if not conforms(content, self.content):
            raise self.error(f"{path} {self.unknown.format(version=repr(version), library=library)}.")
        return content

    def read_bytes(self, path: Path) -> bytes:
        """The content of a file of such a folder."""
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:  # the latter for a name that no file can have
            raise self._unreadable(path, error) from error

    def read_named(self, path: Path, digest: str, size: int | None = None) -> bytes:
        """The content of a file that the seal names, its size (if that is known) and SHA-256 found right."""
        self.check_size(path, size)
        data = self.read_bytes(path)
        self._check_digest(path, hashlib.sha256(data).hexdigest(), digest)
        return data

    def check_named(self, path: Path, digest: str, size: int) -> None:
        """Refuse a file, which may be larger than memory, that is not as the seal says."""
        self.check_size(path, size)
        self._check_digest(path, self.sha256_of(path), digest)

    def _check_digest(self, path: Path, found: str, known: str) -> None:
        if found != known:
            raise self.error(f"{path} does not match its SHA-256: it was damaged or changed; copy it again.")

    def sha256_of(self, path: Path) -> str:
        """The SHA-256 of a file of such a folder, which may be larger than memory."""
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:  # the latter for a name that no file can have
            raise self._unreadable(path, error) from error

    def check_size(self, path: Path, size: int | None) -> None:
        """Refuse a file that is missing, or not of this size."""
        try:
            found = path.stat().st_size
        except FileNotFoundError as error:
            raise self.error(f"{path} is missing; copy the whole folder again.") from error
        except (OSError, ValueError) as error:  # the latter for a name that no file can have
            raise self._unreadable(path, error) from error
        if size is not None and found != size:
            raise self.error(f"{path} has {found} bytes instead of {size}: it was cut short or changed; copy it again.")

    def _unreadable(self, path: Path, error: OSError | ValueError) -> ExpanderError:
        reason = error.strerror if isinstance(error, OSError) else error
        return self.error(f"{path!s:.300} cannot be read ({reason}); check the file and its permissions.")
