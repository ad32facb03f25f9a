"""Coverage-guided fuzzing of everything that reads a seal: `python -m tests.hostile.fuzz WORLD -max_total_time=600`.

Needs `pip install atheris` (and Linux). WORLD is a folder that `python -m tests.hostile --world WORLD` made. The fuzzer
decides which entry of which JSON file becomes what, the checksum is made to fit, and what is no ExpanderError ends it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["expander_sae"]):
    from expander_sae.errors import ExpanderError
    from tests.hostile.damage import READERS

from expander_sae.files import checksum

SEALS = {"autoencoder": "config.json", "store": "manifest.json", "checkpoint": "checkpoint/checkpoint.json",
         "feature database": "database.json"}  # fmt: skip


def main() -> None:
    """Copy what is read, and let the fuzzer change it."""
    world, *options = sys.argv[1:]
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for name in SEALS:
        shutil.copytree(Path(world) / READERS[name][0], place / name)
    sound = {name: json.loads((place / name / seal).read_bytes()) for name, seal in SEALS.items()}

    def once(data: bytes) -> None:
        chosen = atheris.FuzzedDataProvider(data)
        name = sorted(SEALS)[chosen.ConsumeIntInRange(0, len(SEALS) - 1)]
        content = json.loads(json.dumps(sound[name]))
        for _ in range(chosen.ConsumeIntInRange(1, 3)):
            _change(content, chosen)
        try:
            content["checksum"] = checksum(content)
            text = json.dumps(content)
        except (ValueError, RecursionError):
            return
        (place / name / SEALS[name]).write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            READERS[name][1](place / name)
        except (ExpanderError, OSError, MemoryError):
            return

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


def _change(value: Any, chosen: atheris.FuzzedDataProvider) -> None:
    """One entry, however deep."""
    while True:
        keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = keys[chosen.ConsumeIntInRange(0, len(keys) - 1)]
        if not (isinstance(value[key], dict | list) and chosen.ConsumeBool()):
            break
        value = value[key]
    if chosen.ConsumeIntInRange(0, 9) == 0:
        del value[key]
    else:
        value[key] = _value(chosen, 2)


def _value(chosen: atheris.FuzzedDataProvider, depth: int) -> Any:
    kind = chosen.ConsumeIntInRange(0, 8 if depth else 6)
    if kind < 3:
        return chosen.ConsumeIntInRange(-2, 70_000) if kind else chosen.ConsumeInt(9)
    if kind == 3:
        return chosen.ConsumeRegularFloat()
    if kind == 4:
        return chosen.ConsumeUnicode(20)
    if kind in (5, 6):
        return (None, True)[kind - 5]
    inner = [_value(chosen, depth - 1) for _ in range(chosen.ConsumeIntInRange(0, 3))]
    return inner if kind == 7 else dict(zip("abc", inner, strict=False))


if __name__ == "__main__":
    main()
