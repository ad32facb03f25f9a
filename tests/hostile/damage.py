"""Random damage to files of every kind: what is read afterwards is what was written, or a sentence."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from expander_sae import SparseAutoencoder
from expander_sae.activations.store import Store
from expander_sae.autoencoder import describe
from expander_sae.errors import ExpanderError
from expander_sae.features import FeatureDatabase
from expander_sae.files import checksum
from expander_sae.studies.study import SETTINGS, read_cell, read_reports
from expander_sae.training.checkpoints import read_checkpoint
from tests.hostile.children import Child
from tests.hostile.outcomes import Table
from tests.hostile.world import World

Spoil = Callable[[Path, random.Random], None]


def read_autoencoder(folder: Path) -> str:
    """Everything that an autoencoder is."""
    sae = SparseAutoencoder.load(folder)
    tensors = {name: tensor.numpy().tobytes() for name, tensor in sae.state_dict().items()}
    about = {name: each for name, each in describe(folder).to_json().items() if name not in OF_PLACE}
    return _digest(sorted(tensors.items()), json.dumps(about, sort_keys=True), repr(sae.coder))


OF_PLACE = {"path", "bytes_on_disk", "bytes_by_part", "ratio"}
"""What a description says of the folder and not of the autoencoder: a space more in its JSON is a byte more."""


def read_store(folder: Path) -> str:
    """Every token, and what the manifest says."""
    store = Store.open(folder)
    tokens = store[0 : store.tokens]
    parts = [getattr(tokens, name).view(-1).numpy().tobytes() for name in ("token_ids", "document", "position")]
    return _digest(tokens.activations.numpy().tobytes(), parts, repr(store.manifest), repr(store.norms))


def read_state(folder: Path) -> str:
    """What training would go on with."""
    saved = read_checkpoint(folder)
    tensors = [{name: tensor.numpy().tobytes() for name, tensor in sorted(each.items())} for each in saved.tensors]
    said = json.dumps([saved.configs, saved.cursor], sort_keys=True)  # entries in another order say the same
    return _digest(tensors, said, saved.step, saved.tokens, saved.width)


def read_database(folder: Path) -> str:
    """Both tables, and the codes."""
    database = FeatureDatabase.open(folder)
    tables = [database.features().to_pylist(), database.contexts_of(0, database.info.n).to_pylist()]
    codes = [shard.whole(name).tobytes() for shard in database.shards() for name in ("starts",)]
    return _digest(tables, codes, database.info, database.largest.tolist())


def read_study(folder: Path) -> str:
    """Its settings, its cells and its report."""
    if len(list((folder / "cells").iterdir())) != CELLS:
        raise ExpanderError("A cell is missing, which the study makes again.")
    cells = [read_cell(path) for path in sorted((folder / "cells").glob("*.json"))]
    report = read_reports(folder, ["recovery"])[0]
    return _digest(read_cell(folder / SETTINGS), cells, report.to_json(), report.to_markdown(), report.pictures)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


CELLS = 22
"""Of the study in the world."""
READERS: Mapping[str, tuple[str, Callable[[Path], str]]] = {
    "autoencoder": ("run", read_autoencoder),
    "dense autoencoder": ("dense", read_autoencoder),
    "store": ("store", read_store),
    "checkpoint": ("run", read_state),
    "feature database": ("run/features", read_database),
    "study": ("study", read_study),
}
"""What is damaged, by name: where it is in the world, and what reads all of it."""
PARTS = {"checkpoint": "checkpoint"}
"""The part of the folder that is damaged, where that is not all of it."""


def flip(path: Path, chance: random.Random) -> None:
    """Turn over a bit, or a few."""
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 1, 8))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))


def cut(path: Path, chance: random.Random) -> None:
    """End it early, at a random place or right before the end."""
    data = path.read_bytes()
    path.write_bytes(data[: chance.choice((0, len(data) - 1, chance.randrange(len(data) + 1)))])


def append(path: Path, chance: random.Random) -> None:
    """Let it go on."""
    path.write_bytes(path.read_bytes() + chance.choice((b"\0", b" ", b"}", b"\n{}", chance.randbytes(100))))


def blank(path: Path, chance: random.Random) -> None:
    """Fill a stretch of it with zeros, as a disk does, or with noise."""
    data = path.read_bytes()
    start = chance.randrange(len(data) + 1)
    length = min(len(data) - start, chance.choice((1, 16, 512, 4096)))
    path.write_bytes(data[:start] + chance.choice((bytes(length), chance.randbytes(length))) + data[start + length :])


def swap(path: Path, chance: random.Random) -> None:
    """Exchange two stretches."""
    data = bytearray(path.read_bytes())
    if len(data) > 64:
        length = chance.choice((1, 4, 16))
        one, other = (chance.randrange(len(data) - length) for _ in range(2))
        data[one : one + length], data[other : other + length] = (
            data[other : other + length], data[one : one + length])  # fmt: skip
    path.write_bytes(bytes(data))


def replace(path: Path, chance: random.Random) -> None:
    """Put another thing of its folder, a folder, a loop, nothing, or a device in its place."""
    others = [other for other in path.parent.iterdir() if other.is_file() and other != path]
    kind = chance.choice(("gone", "folder", "loop", "other", "null"))
    content = chance.choice(others).read_bytes() if others else b""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "null":
        path.symlink_to("/dev/null")
    elif kind == "other":
        path.write_bytes(content)


def forge(path: Path, chance: random.Random) -> None:
    """Change what a JSON file says, half of the time with a checksum that fits."""
    if path.suffix != ".json":
        flip(path, chance)
        return
    content = json.loads(path.read_bytes())
    _change(content, chance)
    if chance.random() < 0.5 and isinstance(content, dict) and "checksum" in content:
        try:
            content["checksum"] = checksum(content)
        except (ValueError, TypeError):
            content["checksum"] = ""
    path.write_text(json.dumps(content))


ODD = (None, True, -1, 0, 1, 2, 10**9, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x", "../x", "\udc80", [],
       {}, [[]], {"x": 1})  # fmt: skip


def _change(value: Any, chance: random.Random) -> None:
    """Somewhere inside of it."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = chance.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.7:
        _change(value[key], chance)
    elif chance.random() < 0.2:
        del value[key]
    elif isinstance(value, dict) and chance.random() < 0.1:
        value["surplus"] = chance.choice(ODD)
    else:
        value[key] = chance.choice((*ODD, chance.choice(list(value.values()) if isinstance(value, dict) else value)))


SPOILS: tuple[Spoil, ...] = (flip, flip, flip, cut, append, blank, swap, replace, forge, forge)


def damages(world: World, name: str, place: Path, seed: int, tries: int) -> None:
    """Damage a copy again and again; prints a line for every try, for the process that counts them."""
    warnings.simplefilter("ignore")
    where, read = READERS[name]
    chance, folder = random.Random(f"{name} {seed}"), place / name.replace(" ", "-")
    sound = read(world.copy(where, folder))
    for number in range(tries):
        world.copy(where, folder)
        files = sorted(path for path in (folder / PARTS.get(name, "")).rglob("*") if path.is_file())
        if name in ("autoencoder", "dense autoencoder"):
            files = [path for path in files if path.parent == folder and path.suffix in (".json", ".safetensors")]
        path, spoil = chance.choice(files), chance.choice(SPOILS)
        before = path.read_bytes()
        spoil(path, chance)
        kind, said = _read(read, folder, sound, forged=spoil is forge)
        what = f"{name}, seed {seed}, try {number}: {spoil.__name__} of {path.name}"
        if path.is_file() and path.read_bytes() == before and kind == "difference":
            kind = "traceback"  # the reader itself is not always the same
        print(json.dumps([kind, what, said if kind not in ("done", "sentence") else ""]), flush=True)


def _read(read: Callable[[Path], str], folder: Path, sound: str, forged: bool) -> tuple[str, str]:
    """What comes of reading a damaged folder; one that was forged well may say something else."""
    try:
        found = read(folder)
    except ExpanderError as error:
        return ("sentence", str(error)) if str(error) and "\n" not in str(error) else ("traceback", repr(error))
    except (OSError, MemoryError) as error:  # which the command line makes a sentence of
        return "sentence", str(error)
    except Exception:
        return "traceback", traceback.format_exc()
    return ("done" if forged or found == sound else "difference"), found


def try_damages(world: World, place: Path, table: Table, seed: int, tries: int) -> None:
    """So many damages of every kind, each kind in a process of its own, which a crash of native code would end."""
    for name in READERS:
        if table.over:
            return
        ended = Child(partial(damages, world, name, place, seed, tries)).wait()
        lines = [json.loads(line) for line in ended.output.splitlines()]
        for kind, what, said in lines:
            table.add(f"damage: {name}", kind, what, said)
        if len(lines) < tries:
            crash = "hang" if ended.kind == "hang" else "traceback"
            table.add(f"damage: {name}", crash, f"{name}, seed {seed}, try {len(lines)}", ended.said)
    shutil.rmtree(place, ignore_errors=True)
