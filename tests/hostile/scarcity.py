"""Too little of everything: space on disk, files, memory, rights. What is refused leaves what can be gone on with."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hostile.children import command, limited
from tests.hostile.kills import arguments, resumable
from tests.hostile.outcomes import Table
from tests.hostile.world import World, content, different

NOBODY = 65534
OUT_OF_MEMORY = (
    "memory allocation of",
    "std::bad_alloc",
    "LLVM ERROR: Unable to allocate",
    "LLVM ERROR: out of memory",
)
"""How native code of other libraries ends a process where there is no memory; nobody can catch it."""


def try_scarcity(world: World, place: Path, table: Table, chance: random.Random, rounds: int) -> None:
    """Every kind of scarcity, on commands drawn at random."""
    makers = {name: make for name, make in resumable(world).items() if name in ("harvest", "train", "features")}
    known = {name: _whole(make, place / "whole") for name, make in makers.items()}
    for _ in range(rounds):
        for kind, scarce in _kinds(chance).items():
            if table.over:
                return
            name = chance.choice(list(makers))
            out = place / "scarce"
            _scarce(kind, name, makers[name], out, scarce, table)
            if kind != "read-only folders":
                _completed(kind, name, makers[name], out, known[name], table)
        with _small_disk(place / "disk", chance.randrange(8, 200)) as disk:
            name = chance.choice(list(makers))
            if disk is not None:
                _scarce("small disks", name, makers[name], disk / "scarce", lambda: None, table)


def _kinds(chance: random.Random) -> dict[str, Callable[[], object]]:
    """What is taken from a process."""
    return {
        "small files": limited(resource.RLIMIT_FSIZE, chance.randrange(0, 60_000)),
        "few files": limited(resource.RLIMIT_NOFILE, chance.randrange(3, 40)),
        "little memory": _more_memory(chance.randrange(0, 300) * 2**20),
        "read-only folders": _no_rights,
    }


def _more_memory(more: int) -> Callable[[], object]:
    """Let a process have only so much more than it has."""

    def prepare() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limited(resource.RLIMIT_AS, pages * resource.getpagesize() + more)()

    return prepare


def _no_rights() -> None:
    """Be nobody, who may write nowhere; as root folders cannot be read-only."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _whole(maker: Callable[[str], list[str]], out: Path) -> dict[str, object]:
    shutil.rmtree(out, ignore_errors=True)
    ended = command(maker(str(out))).wait()
    assert ended.status == 0, ended
    return content(out)


def _scarce(
    kind: str, name: str, maker: Callable[[str], list[str]], out: Path, prepare: Callable[[], object], table: Table
) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    os.chmod(out.parent, 0o755)
    ended = command(maker(str(out)), prepare=prepare).wait()
    outcome = "sentence" if any(words in ended.errors for words in OUT_OF_MEMORY) else ended.kind
    table.add(kind, outcome, name, ended.said)


def _completed(
    kind: str, name: str, maker: Callable[[str], list[str]], out: Path, expected: dict[str, object], table: Table
) -> None:
    """With enough of everything the same command goes on to the same result."""
    if (out / "config.json").exists() and name == "train":
        return  # it was finished
    ended = command(arguments(maker, out)).wait()
    finished = ended.kind == "done" or "complete" in ended.errors
    differing = different(content(out), expected) if finished else []
    outcome = "traceback" if not finished else "difference" if differing else "done"
    table.add("after scarcity", outcome, f"{kind}: {name}: {', '.join(differing)}", ended.said)


@contextmanager
def _small_disk(place: Path, kilobytes: int) -> Iterator[Path | None]:
    """A disk of this size; None where this user may not mount one."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
