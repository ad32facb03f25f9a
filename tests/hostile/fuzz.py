"""Coverage-guided fuzzing of what reads every format: `python -m tests.hostile.fuzz WORLD --minutes 60 CORPUS`.

Needs `pip install atheris` (and Linux). WORLD is a folder that `python -m tests.hostile --world WORLD` made; further
words are libFuzzer's, such as a folder for a corpus. A finding is printed once and does not end it; it ends with their
number, and how many inputs were tried.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import atheris
import torch

SOURCE = Path(__file__).parents[2] / "src"
COMPILED = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")
            if path.parts[-2] == "cpu" or "numba" in path.read_text()]  # fmt: skip
"""Modules with kernels, which cannot be compiled with the fuzzer's own calls in them."""

with atheris.instrument_imports(include=["expander_sae"], exclude=COMPILED):
    from tests.hostile.__main__ import load

    load()
    from tests.hostile.forging import Forger
    from tests.hostile.formats import every_format
    from tests.hostile.world import World


def main() -> None:
    """Make one of every format, and let the fuzzer forge it."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("world", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to try")
    parser.add_argument("--inputs", type=int, default=10**12, help="how many to try at most")
    asked, options = parser.parse_known_args()
    torch.set_num_threads(1)
    formats = every_format(World.in_folder(asked.world), Path(tempfile.mkdtemp(prefix="fuzz-")))
    findings = Counter[str]()

    def found(what: str, trace: str) -> None:
        findings[what] += 1
        if findings[what] == 1:
            print(f"FINDING: {what}\n{trace}", flush=True)

    forger, began = Forger(formats, found), time.monotonic()
    told = began

    def once(data: bytes) -> None:
        nonlocal told
        forger.once(data)
        now, tried = time.monotonic(), forger.counts.total()
        over = tried >= asked.inputs or now - began > 60 * asked.minutes
        if over or now - told > 60:
            told = now
            print(f"{tried:,} inputs in {now - began:,.0f} s, {len(findings)} findings", flush=True)
        if over:
            print("\n".join(f"{name:32}{count:>10,}" for name, count in sorted(forger.counts.items())), flush=True)
            sys.stdout.flush()
            os._exit(bool(findings))

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
