"""Files that say something else and carry the checksum of it, drawn from bytes, as a fuzzer or a seed gives them."""

from __future__ import annotations

import json
import random
import shutil
import struct
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from expander_sae.errors import ExpanderError
from expander_sae.files import SealedFolder, checksum
from tests.hostile.children import Child
from tests.hostile.formats import Format, every_format
from tests.hostile.outcomes import Table
from tests.hostile.world import World

Found = Callable[[str, str], None]
WORDS = ("text", "add", "topk", "jumprelu", "standard", "gated", "float32", "cpu", "/x", "..", "\0", "é", "nan", 
         "1e999", "batchtopk", "GatedAutoEncoder", "AutoEncoder", "BatchTopKSAE", "layers.1",
         "blocks.1.hook_resid_pre")  # fmt: skip
"""What a text becomes beside noise, since readers branch on some of them."""


TOGETHER = 1000
"""Forgeries of one process."""


class Choices:
    """Decisions out of bytes, the first ones when they are used up; the same bytes decide the same."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def bytes(self, count: int) -> bytes:
        """The next ones, as many as there still are."""
        self._place += count
        return self._data[self._place - count : self._place]

    def below(self, limit: int) -> int:
        """A number from 0 to limit - 1."""
        return int.from_bytes(self.bytes(1 if limit <= 256 else 4), "little") % limit if limit > 1 else 0

    def one_in(self, count: int) -> bool:
        """Seldom true."""
        return self.below(count) == count - 1 and count > 0

    def value(self, depth: int = 2) -> Any:
        """Something that JSON may hold."""
        kind = self.below(10 if depth else 8)
        if kind < 3:
            number = int.from_bytes(self.bytes((1, 2, 9)[kind]), "little", signed=True)
            return abs(number) if self.below(4) else number
        if kind == 3:
            return struct.unpack("<d", self.bytes(8).ljust(8, b"\1"))[0]
        if kind == 4:
            return "".join(chr(int.from_bytes(self.bytes(2), "little")) for _ in range(self.below(10)))
        if kind == 5:
            return WORDS[self.below(len(WORDS))]
        if kind in (6, 7):
            return (None, True)[kind - 6]
        inner = [self.value(depth - 1) for _ in range(self.below(4))]
        return inner if kind == 8 else dict(zip("abc", inner, strict=False))


def change(value: Any, choices: Choices) -> None:
    """Another entry somewhere in a list or an object, or one less or more."""
    while True:
        keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = keys[choices.below(len(keys))]
        if not (isinstance(value[key], dict | list) and value[key] and choices.below(4)):
            break
        value = value[key]
    kind = choices.below(10)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, list):
        value.append(choices.value())
    elif kind == 2:
        value[key] = value[keys[choices.below(len(keys))]]
    else:
        value[key] = choices.value()


def other_bytes(data: bytes, choices: Choices) -> bytes:
    """The same with some bytes changed, put in or taken out; near to the beginning, where heads are, as a rule."""
    for _ in range(1 + choices.below(4)):
        place = choices.below(max(1, min(len(data), (64, 1024, len(data), len(data))[choices.below(4)])))
        place = len(data) - place if choices.one_in(5) else place  # or to the end, as in Parquet and ZIP files
        kind, piece = choices.below(4), choices.bytes(1 + choices.below(9)) or b"\0"
        if kind == 0:
            data = data[:place] + piece + data[place + len(piece) :]
        elif kind == 1:
            data = data[:place] + piece + data[place:]
        elif kind == 2:
            data = data[:place] + data[place + len(piece) :]
        else:
            data = data[:place] if choices.one_in(3) else data[:place] + bytes(len(piece)) + data[place + len(piece) :]
    return data


def forged(path: Path, sound: bytes, sealed: str, choices: Choices) -> bytes:
    """Other content of a file, whose checksum fits where it has one."""
    if path.suffix == ".safetensors" and choices.below(3):
        return _other_head(sound, choices)
    if path.suffix not in (".json", ".jsonl") or choices.one_in(8):
        return other_bytes(sound, choices)
    lines = sound.split(b"\n") if path.suffix == ".jsonl" else [sound]
    number = choices.below(len(lines))
    content = json.loads(lines[number] or b"[0]")
    for _ in range(1 + choices.below(3)):
        change(content, choices)
    try:
        if sealed and isinstance(content, dict):
            others = {key: value for key, value in content.items() if key != "checksum"}
            content["checksum"] = checksum(others if sealed == "content" else {"file": path.name, "content": others})
    except ValueError:
        pass
    lines[number] = json.dumps(content).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _other_head(data: bytes, choices: Choices) -> bytes:
    """A safetensors file whose head says something else."""
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    for _ in range(1 + choices.below(3)):
        change(head, choices)
    text = json.dumps(head).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@dataclass
class Forger:
    """Forges one file after the other, has it read, and counts what came of it."""

    formats: dict[str, Format]
    found: Found
    """Is told what was neither read nor refused by a sentence: in a few words, and the traceback."""
    counts: Counter[str] = field(default_factory=Counter)
    """Inputs by format."""

    def __post_init__(self) -> None:
        warnings.simplefilter("ignore")
        self._sound = {name: {path: path.read_bytes() for path in each.paths()} for name, each in self.formats.items()}
        assert all(self._sound.values()), [name for name, files in self._sound.items() if not files]
        # What a seal names by its SHA-256 may be anything here, as if the seal had been forged with it.
        SealedFolder._check_digest = SealedFolder.check_size = lambda *_: None  # type: ignore[assignment,method-assign]

    def once(self, data: bytes) -> str:
        """What these bytes decide; gives back what came of it, as the table has it."""
        choices, names = Choices(data), sorted(self.formats)
        name = names[choices.below(len(names))]
        files = self._sound[name]
        path = sorted(files)[choices.below(len(files))]
        path.write_bytes(forged(path, files[path], self.formats[name].sealed, choices))
        self.counts[name] += 1
        try:
            self.formats[name].read(self.formats[name].place)
            return "done"
        except (ExpanderError, OSError, MemoryError):
            return "sentence"
        except Exception as error:
            ours = [each for each in traceback.extract_tb(error.__traceback__) if "expander_sae" in each.filename]
            self.found(f"{name}: {type(error).__name__} in {ours[-1].name}", traceback.format_exc())
            return "traceback"
        finally:
            path.write_bytes(files[path])


def forgeries(world: World, place: Path, seed: int, tries: int) -> None:
    """So many; prints a line for every try, for the process that counts them."""
    said, chance = list[str](), random.Random(f"forgeries {seed}")
    forger = Forger(every_format(world, place), lambda what, trace: said.append(f"{what}\n{trace}"))
    for _ in range(tries):
        kind = forger.once(chance.randbytes(300))
        print(json.dumps([kind, said.pop() if said else ""]), flush=True)


def try_forgeries(world: World, place: Path, table: Table, seed: int, tries: int) -> None:
    """In processes of their own, which a crash of native code would end; in each a thousand at most."""
    for part in range(0, tries, TOGETHER):
        if table.over:
            return
        shutil.rmtree(place, ignore_errors=True)
        number = min(tries, TOGETHER)
        ended = Child(partial(forgeries, world, place, seed * 100_000 + part, number)).wait()
        lines = [json.loads(line) for line in ended.output.splitlines() if line.startswith("[")]
        for kind, said in lines:
            table.add("forgeries", kind, f"seed {seed}, part {part}", said)
        if len(lines) < number:
            kind = "hang" if ended.kind == "hang" else "traceback"
            table.add("forgeries", kind, f"seed {seed}, part {part}, try {len(lines)}", ended.said)
