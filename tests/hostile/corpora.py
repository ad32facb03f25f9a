"""Texts that nobody wrote for a model: markup, NULs, right-to-left, a megabyte without a space, bytes of no text."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from tests.hostile.children import command
from tests.hostile.outcomes import Table
from tests.hostile.world import World

TEXTS: dict[str, str] = {
    "markup": "[/x] [bold]all[/] <script>alert(1)</script> {0} %s \\N{x} $PATH `ls` \n" * 30,
    "NULs": "a\0b\0\0c " * 200,
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u2067x\u2069 " * 100,
    "a megabyte without a space": "x" * 2**20,
    "combining": "e\u0301\u0302\u0303" * 3000 + "\U0001f469\u200d\U0001f4bb" * 500,
    "controls": "".join(map(chr, range(32))) * 50 + "\x1b[31mred\x1b]0;title\x07" * 20,
    "spaces": " \t\n\r\u00a0\u3000" * 500,
    "one letter": "a",
    "nothing": "",
    "the end of a text": "<bos></s><|endoftext|>" * 200,
}
LINES: dict[str, list[str]] = {
    "a lone surrogate": ['{"text": "a \\ud800 b"}'] * 50,
    "no objects": ["1", "null", '"x"', "[]", "{}"],
    "no text": ['{"text": 1}', '{"text": null}'],
    "not JSON": ["{", "not json"],
    "deep": ["[" * 100_000],
    "long numbers": ['{"text": "x", "n": ' + "9" * 10_000 + "}"] * 3,
    "the same key twice": ['{"text": 1, "text": "a text that is one"}'] * 40,
}
BYTES: dict[str, bytes] = {"no UTF-8": b"\xff\xfe\x00abc" * 100, "a byte order mark": b"\xef\xbb\xbfhello there " * 80}


def write_corpora(folder: Path, chance: random.Random) -> dict[str, Path]:
    """A file of each, and some of noise."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = {}
    for name, text in TEXTS.items():
        found[name] = folder / f"{len(found)}.txt"
        found[name].write_text(text)
        found[f"{name} in JSONL"] = folder / f"{len(found)}.jsonl"
        found[f"{name} in JSONL"].write_text(json.dumps({"text": text}) + "\n")
    for name, lines in LINES.items():
        found[name] = folder / f"{len(found)}.jsonl"
        found[name].write_text("\n".join(lines))
    noise = {f"noise {ending}": (chance.randbytes(5000), ending) for ending in ("txt", "jsonl", "parquet")}
    for name, (data, ending) in {**{name: (data, "txt") for name, data in BYTES.items()}, **noise}.items():
        found[name] = folder / f"{len(found)}.{ending}"
        found[name].write_bytes(data)
    return found


def try_corpora(world: World, place: Path, table: Table, chance: random.Random, rounds: int) -> None:
    """Harvest each, and look at the features of what came of it."""
    for _ in range(rounds):
        for name, path in write_corpora(place / "texts", chance).items():
            if table.over:
                return
            out = place / "store"
            shutil.rmtree(out, ignore_errors=True)
            wanted = world.harvest(str(out))
            wanted[wanted.index("--text") + 1] = str(path)
            wanted[wanted.index("--tokens") + 1] = "300"
            ended = command([*wanted, "--part", "all"]).wait()
            table.add("corpora", ended.kind, name, ended.said)
            if ended.kind == "done":
                more = ["--store", str(out), "--out", str(place / "database")]
                shutil.rmtree(place / "database", ignore_errors=True)
                ended = command(world.features(world.path("run"), more)).wait()
                table.add("corpora", ended.kind, f"features of {name}", ended.said)
