"""Hostile use of everything for so many minutes: `python -m tests.hostile --budget 30 --seed 1`.

`make hostile` does the same; docs/reliability.md tells of it.
Prints whatever must not happen when it does, and the table; ends with 1 if there was any.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from expander_sae.cli.commands import NAMES
from expander_sae.cli.study import STUDIES
from tests.hostile.calls import try_calls
from tests.hostile.corpora import try_corpora
from tests.hostile.crowds import try_crowds
from tests.hostile.damage import try_damages
from tests.hostile.forging import try_forgeries
from tests.hostile.kills import try_kills
from tests.hostile.outcomes import Table
from tests.hostile.scarcity import try_scarcity
from tests.hostile.world import World

SHARES = {"damages": 0.15, "calls": 0.32, "kills": 0.27, "scarcity": 0.08, "crowds": 0.04, "corpora": 0.08,
          "forgeries": 0.06}  # fmt: skip
"""Of the time, by what is tried."""
SLICE = {"damages": 20, "calls": 30, "kills": 6, "scarcity": 1, "crowds": 1, "corpora": 0, "forgeries": 500}
"""How much of each is a part of every test run, however long it takes."""
USED = (
    "training", "finetuning", "features", "evaluation.quality.session", "interventions", "server", "certificates",
    "reporting.dashboard", "reporting.page", "reporting.charts", "kernels.cpu.select", "kernels.cpu.greedy",
    "kernels.cpu.pursue", "kernels.cpu.products", "kernels.cpu.local", "kernels.greedy", "activations.harvest",
    "interop.formats", "interop.hub",
)  # fmt: skip
OTHERS = ("pyarrow.parquet", "transformers.models.llama.modeling_llama", "matplotlib.pyplot")


def load() -> None:
    """Import what commands import, so that a fork has it; compute nothing, so that forks have one thread.

    There is no hub, so that nothing is sent to one or waited for.
    """
    os.environ["HF_ENDPOINT"] = "http://localhost:9"
    torch.set_num_threads(1)
    rooms = [*USED, *(f"cli.{name}" for name in NAMES), *(f"studies.{name}" for name in STUDIES)]
    for name in (*(f"expander_sae.{room}" for room in rooms), *OTHERS):
        importlib.import_module(name)


def main() -> None:
    """Parse, make the world, try, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--budget", type=float, help="minutes to try for; without it a small fixed part is tried")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--only", choices=SHARES, help="try nothing else")
    parser.add_argument("--world", type=Path, help="a folder with what is read, from an earlier time, or to make it in")
    asked = parser.parse_args()
    load()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        os.chmod(folder, 0o755)  # for nobody, too
        place = Path(folder)
        world = World.in_folder(asked.world or place / "world")
        with suppress(KeyboardInterrupt):  # Ctrl-C ends it with the table so far
            for name, share in SHARES.items():
                if asked.only in (None, name):
                    minutes = None if asked.budget is None else asked.budget * (1.0 if asked.only else share)
                    _try(name, world, place / name, table, asked.seed, minutes)
    print(f"seed {asked.seed}", table, sep="\n")
    sys.exit(bool(table.wrong))


def _try(name: str, world: World, place: Path, table: Table, seed: int, minutes: float | None) -> None:
    """One kind of tries: for so many minutes, or a small fixed number."""
    place.mkdir(parents=True, exist_ok=True)
    table.deadline = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    number = SLICE[name] if minutes is None else 1_000_000
    chance = random.Random(f"{name} {seed}")
    tries: dict[str, Callable[[], None]] = {
        "damages": lambda: _damages(world, place, table, seed, number),
        "calls": lambda: try_calls(world, place, table, chance, number),
        "kills": lambda: try_kills(world, place, table, chance, number, "train" if minutes is None else ""),
        "scarcity": lambda: try_scarcity(world, place, table, chance, number),
        "crowds": lambda: try_crowds(world, place, table, chance, number),
        "corpora": lambda: try_corpora(world, place, table, chance, number),
        "forgeries": lambda: try_forgeries(world, place, table, seed, number),
    }
    tries[name]()


def _damages(world: World, place: Path, table: Table, seed: int, number: int) -> None:
    """Of all kinds of files in turn, so that each gets its share."""
    for part in range(0, number, min(number, 100)):
        if not table.over:
            try_damages(world, place, table, seed * 100_000 + part, min(number, 100))


if __name__ == "__main__":
    main()
