"""Several at once: two writers of one folder, threads and forks that encode with one autoencoder."""

from __future__ import annotations

import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from expander_sae import SparseAutoencoder
from tests.hostile.children import Child, command
from tests.hostile.kills import resumable
from tests.hostile.outcomes import Table
from tests.hostile.world import World, content, different

TOGETHER = 4


def try_crowds(world: World, place: Path, table: Table, chance: random.Random, rounds: int) -> None:
    """Two writers of every kind, and encoders of every kind, so many times."""
    makers = {name: make for name, make in resumable(world).items() if name in ("harvest", "train", "features")}
    known = {}
    for _ in range(rounds):
        for name, maker in makers.items():
            if table.over:
                return
            out = place / "shared"
            if name not in known:
                shutil.rmtree(out, ignore_errors=True)
                assert command(maker(str(out))).wait().status == 0
                known[name] = content(out)
            _two_writers(name, maker(str(out)), out, known[name], table, chance.uniform(0, 0.3))
        child = Child(lambda: encode_together(world))
        ended = child.wait()
        table.add("threads and forks", ended.kind, "encode", ended.said)


def _two_writers(
    name: str, wanted: list[str], out: Path, expected: dict[str, object], table: Table, apart: float
) -> None:
    """Each may be refused, but one of them ends, and what is there then is whole."""
    shutil.rmtree(out, ignore_errors=True)
    children = [command(wanted)]
    time.sleep(apart)
    children.append(command(wanted))
    ended = [child.wait() for child in children]
    for each in ended:
        table.add("two writers", each.kind, f"{name}, {apart:.2f} s apart", each.said)
    differing = different(content(out), expected)
    if not any(each.kind == "done" for each in ended) or differing:
        said = "\n".join(each.said for each in ended)
        table.add("two writers", "difference", f"{name}, {apart:.2f} s apart: {', '.join(differing)}", said)


def encode_together(world: World) -> None:
    """Threads and processes that encode the same tokens find the same codes."""
    sae = SparseAutoencoder.load(world.path("run"))
    x = torch.randn(512, sae.m, generator=torch.Generator().manual_seed(0))
    codes = sae.encode(x)
    wanted = codes.indices.clone(), codes.values.clone()

    def encode(_: int) -> bool:
        found = sae.encode(x)
        return bool(torch.equal(found.indices, wanted[0]) and torch.equal(found.values, wanted[1]))

    with ThreadPoolExecutor(TOGETHER) as pool:
        assert all(pool.map(encode, range(4 * TOGETHER)))
    children = []
    for number in range(TOGETHER):
        child = os.fork()
        if child == 0:
            os._exit(0 if encode(number) else 1)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
