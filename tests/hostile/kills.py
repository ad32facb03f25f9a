"""Kills and signals at random moments of every command that can go on, compared with a run that nobody disturbed."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.hostile.children import Ended, command
from tests.hostile.outcomes import Table
from tests.hostile.world import STUDIES, World, content, different, without_metrics

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_KILLS = 6
"""Of one series, before it is left alone to finish."""
TIMED = {"planted"}
"""Studies that measure times and begin anew whenever they are run, so that no two runs say the same."""


def resumable(world: World) -> Mapping[str, Callable[[str], list[str]]]:
    """Commands that go on after a kill, given where they write."""
    commands: dict[str, Callable[[str], list[str]]] = {
        "harvest": world.harvest,
        "train": world.train,
        "train several": lambda out: [*world.train(out), "--also", "2", "dense"],
        "finetune": world.finetune,
        "features": lambda out: world.features(world.path("run"), ["--out", out]),
        "quality": world.quality,
    }
    studies = {f"study {name}": _study(world, name) for name in STUDIES if name not in TIMED}
    return commands | studies


def _study(world: World, name: str) -> Callable[[str], list[str]]:
    return lambda out: world.study(name, out)


def try_kills(world: World, place: Path, table: Table, chance: random.Random, kills: int, only: str = "") -> None:
    """So many kills, spread over all commands, series after series."""
    makers = [item for item in resumable(world).items() if only in item[0]]
    known: dict[str, tuple[dict[str, Any], float]] = {}
    done = 0
    while done < kills and not table.over:
        chance.shuffle(makers)
        for name, maker in makers:
            if table.over or done >= kills:
                return
            out = place / "killed"
            if name not in known:
                known[name] = _undisturbed(maker, out)
            done += _series(name, maker, out, known[name], table, chance)


def _undisturbed(maker: Callable[[str], list[str]], out: Path) -> tuple[dict[str, Any], float]:
    """What a run leaves that nobody disturbs, and how long it takes."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    ended = command(maker(str(out))).wait()
    assert ended.status == 0, ended
    return content(out), time.monotonic() - began


def _series(
    name: str,
    maker: Callable[[str], list[str]],
    out: Path,
    known: tuple[dict[str, Any], float],
    table: Table,
    chance: random.Random,
) -> int:
    """Kill a run until it has had enough, let it finish, and compare."""
    expected, seconds = known
    shutil.rmtree(out, ignore_errors=True)
    kills, story = 0, []
    for _ in range(chance.randrange(1, MOST_KILLS)):
        number, moment = chance.choice(SIGNALS), chance.uniform(0, seconds)
        ended = _struck(arguments(maker, out), number, moment, twice=chance.random() < 0.2)
        story.append(f"{signal.Signals(number).name} after {moment:.2f} s: status {ended.status}")
        if ended.status == 0:
            break
        kills += 1
        table.add("kills", _judged(ended, number), f"{name}: {'; '.join(story)}", ended.said)
    ended = command(arguments(maker, out)).wait()
    complete = ended.kind == "sentence" and not different(content(out), expected)  # killed when all was there already
    if ended.kind != "done" and not complete:
        table.add("after kills", "traceback", f"{name}: {'; '.join(story)}", ended.said)
        return kills
    stopped = any("status 1" in each for each in story)  # by itself, which adds a row of metrics where it stopped
    differing = different(content(out), expected)
    if stopped:
        differing = [file for file in differing if not _tells_rows(file, out, expected)]
    what = f"{name}: {'; '.join(story)}: {', '.join(differing)}"
    table.add("after kills", "difference" if differing else "done", what)
    return max(1, kills)


def _tells_rows(file: str, out: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a file differs in nothing but rows of metrics."""
    if file.endswith("metrics.jsonl"):
        return True
    return file.endswith("config.json") and without_metrics(content(out)[file]) == without_metrics(expected[file])


def arguments(maker: Callable[[str], list[str]], out: Path) -> list[str]:
    """What is typed to begin, or to go on where there is something to go on with."""
    wanted = maker(str(out))
    resumes = wanted[0] in ("train", "finetune") and (out / "checkpoint" / "checkpoint.json").exists()
    return [*wanted, "--resume"] if resumes else wanted


def _struck(wanted: list[str], number: int, moment: float, twice: bool) -> Ended:
    """A command that gets a signal after some seconds, or perhaps another right behind it."""
    child = command(wanted)
    while time.monotonic() - child.began < moment and not child.ended():
        time.sleep(0.001)
    child.kill(number)
    if twice and number == signal.SIGINT:
        time.sleep(0.01)
        child.kill(number)
    return child.wait()


def _judged(ended: Ended, number: int) -> str:
    """What came of a process that was told to stop."""
    if ended.kind == "hang" or (ended.status == -number and number != signal.SIGINT):
        return "hang" if ended.kind == "hang" else "done"
    if ended.status == 128 + number and ended.kind == "sentence":
        return "sentence"
    return "traceback"
