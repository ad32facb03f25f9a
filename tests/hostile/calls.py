"""Wrong calls, made from what the commands' own parsers say: every option times bad values, and several at once."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import tyro

from expander_sae.cli.commands import NAMES
from expander_sae.cli.study import PAGE, STUDIES, Page
from expander_sae.means import DAYS
from tests.hostile.children import Ended, command
from tests.hostile.outcomes import Table
from tests.hostile.world import STUDIES as SMALL
from tests.hostile.world import World

ENDLESS = {"view": ("--hookpoint", "nowhere"), "bench": ("--json", "nowhere/x.json"), "demo": ("--model", "nowhere")}
"""What is wrong in every call of commands that would not end, or not soon, if nothing were."""
TEXTS = ("", "x", "[/x]", "[bold]", "{}", "%s", "\udcff", "\u202e", "é" * 300, "a/" * 2000, "None", "true", "-", "--",
         "-x", "'; --", "a\nb")  # fmt: skip
NUMBERS = ("0", "-1", "1", "3", "0.5", "1e30", "1e400", "nan", "inf", "-inf", "100000000000", "1" * 30, str(2**31),
           str(2**63 - 1), str(2**63), str(2**64), "9" * 5000, "0x10", "1_000", "٣")  # fmt: skip
DEVICES = ("cuda", "cuda:99", "cpu:99", "meta", "mps", "tpu")
PLACES = (".", "..", "loop", "loop/x", "text.jsonl", "text.jsonl/x", "store", "run",
          "study", "model", "store/inside", "run/inside", "run/config.json", "nowhere", "nowhere/x.json")  # fmt: skip
"""Nothing outside of the folder in which calls are made: they are made by root, too, who may replace a device."""
CODERS = ("omp:3", "omp:0", "omp:-1", "omp:99999999999999999999", "fista:inf", "fista:nan", "fista:0.1", "topk:x",
          "basis_pursuit", "voting:2", "niht:2", "cd:1e30")  # fmt: skip


TELL = 300
"""Seconds between lines that say how many calls there were."""
SHORT_DAY = 40 / 86_400
"""Days that work may take here: what would take longer is to be refused, not carried out."""


@dataclass(frozen=True)
class Subject:
    """A command with a call that works, and what its parser knows."""

    words: tuple[str, ...]
    """What stands before the arguments: `train`, or `study recovery`."""
    good: tuple[str, ...]
    parser: argparse.ArgumentParser

    def options(self) -> list[argparse.Action]:
        """Everything that it can be told."""
        return [action for action in self.parser._actions if not isinstance(action, argparse._HelpAction)]


def _in_a_hurry() -> None:
    os.environ[DAYS] = str(SHORT_DAY)


def subjects(world: World, out: str) -> list[Subject]:
    """All commands; what they write goes to the folder `out`."""
    run, model = world.path("run"), world.path("model")
    good = {
        "model": [model], "harvest": world.harvest(out)[1:], "train": world.train(out)[1:],
        "finetune": world.finetune(out)[1:],
        "cut": [world.path("pursued"), world.path("store"), "--out", out, "--d", "2"],
        "grow": [world.path("dense"), world.path("store"), "--out", out, "--n", "40", "--d", "2", "--tokens", "256"],
        "eval": [run, "--tokens", "200", "--part", "all"], "features": world.features(run, ["--out", out])[1:],
        "quality": world.quality(out)[1:], "dashboard": [run, "--out", out],
        "view": [run, "--no-open"],
        "steer": [run, "--prompt", "The sun", "--add", "3:1", "--tokens", "3"],
        "attribute": [run, "--text", "The sun had", "--loss", "--top", "2"],
        "certify": [run, "--supports", "5", "--restarts", "2", "--tokens", "20"],
        "demo": ["--out", out], "bench": [],
        "info": [run], "compress": [run, out], "push": [run, "--to", "owner/name"],
        "pull": ["owner/name", "layers.1", "--out", out],
        "export": [run, "--to", "sparsify", "--out", out, "--coder", "topk:4"],
        "import": [world.path("foreign"), "--out", out],
    }  # fmt: skip
    found = []
    for name in NAMES:
        if name != "study":
            found.append(Subject((name,), tuple(good[name]), tyro.extras.get_parser(_kind(name), prog=name)))
    learning = (run, out, "--d", "2", "--store", world.path("store"), "--tokens", "512", "--measure", "0")
    found.append(Subject(("compress",), learning, tyro.extras.get_parser(_kind("compress"), prog="compress")))
    for name in SMALL:
        if name in STUDIES:
            kind = import_module(f"expander_sae.studies.{name}").STUDY.config
            call = ("--out", out, *SMALL[name])
            found.append(Subject(("study", name), call, tyro.extras.get_parser(kind, prog=name)))
    page = (world.path("study"), "--out", f"{out}.html")
    found.append(Subject(("study", PAGE), page, tyro.extras.get_parser(Page, prog=PAGE)))
    return found


def _kind(name: str) -> type:
    module = import_module(f"expander_sae.cli.{name}")
    return module.DemoConfig if name == "demo" else getattr(module, name.capitalize())


def values_for(action: argparse.Action) -> Sequence[str]:
    """What an option must not be harmed by."""
    name = action.dest.replace("_", "-")
    if "device" in name:
        return (*DEVICES, *TEXTS)
    if "coder" in name:
        return (*CODERS, *TEXTS)
    shown = str(action.metavar)
    if "INT" in shown or "FLOAT" in shown:
        return (*NUMBERS, "", "x")
    return (*TEXTS, *PLACES) if "PATH" in shown or "STR" in shown else (*TEXTS, *NUMBERS[:4])


def spoiled(subject: Subject, chance: random.Random, options: int) -> list[str]:
    """The call that works, with so many options given values of the wrong kind."""
    arguments = list(subject.good)
    for action in chance.sample(subject.options(), min(options, len(subject.options()))):
        value = chance.choice(values_for(action))
        if not action.option_strings:
            places = [number for number, each in enumerate(arguments) if not each.startswith("-")][:1]
            for number in places:
                arguments[number] = value
            continue
        flag = action.option_strings[0]
        if action.nargs == 0:
            arguments.append(flag)
        else:
            if flag in arguments:
                del arguments[arguments.index(flag) : arguments.index(flag) + 2]
            arguments += [f"{flag}={value}"] if chance.random() < 0.2 else [flag, value]
    return [*subject.words, *arguments, *ENDLESS.get(subject.words[0], ())]


def every_call(world: World, out: str, chance: random.Random) -> Iterator[list[str]]:
    """Calls without end: one option spoiled, or several, or the words themselves."""
    known = subjects(world, out)
    while True:
        subject = chance.choice(known)
        kind = chance.random()
        if kind < 0.03:
            yield [chance.choice([*TEXTS, *NUMBERS, *PLACES]), *subject.good]
        elif kind < 0.06:
            fewer = chance.sample(subject.good, chance.randrange(len(subject.good) + 1))
            small = SMALL.get(subject.words[-1], ())  # at its usual size a study may take the minutes that it says
            yield [*subject.words, *fewer, *small, *ENDLESS.get(subject.words[0], ())]
        else:
            yield spoiled(subject, chance, 1 if kind < 0.7 else chance.choice((2, 2, 3, 5)))


def try_calls(world: World, place: Path, table: Table, chance: random.Random, tries: int) -> None:
    """Make wrong calls; what they read must stay as it was."""
    before, told = world.fingerprint(), time.monotonic()
    calls = every_call(world, "made", chance)
    for number in range(tries):
        if table.over:
            return
        arguments = next(calls)
        scratch = place / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for name in ("store", "run", "study", "model", "text.jsonl", "loop"):
            (scratch / name).symlink_to(world.place / name)
        ended = command(arguments, scratch, _in_a_hurry).wait()
        table.add("wrong calls", *_judged(arguments, ended))
        if time.monotonic() - told > TELL:
            told = time.monotonic()
            print(f"{number + 1:,} calls", file=sys.stderr, flush=True)
        if number % 50 == 49 or ended.kind == "done":
            now = world.fingerprint()
            changed = [name for name, digest in before.items() if now.get(name) != digest]
            writable = _told_to_write(arguments, world)
            spoiled_files = [name for name in changed if writable is None or not name.startswith(writable)]
            before = now
            table.add("what calls read", "difference" if spoiled_files else "done", f"{arguments}: {spoiled_files}")


def _told_to_write(arguments: list[str], world: World) -> str | None:
    """The folder of the world that a call may write: the one it was told, unless it reads of the same thing.

    A call of `features` that is told none writes beside the autoencoder's own files.
    """
    said = [part for argument in arguments for part in argument.split("=", 1)]
    places = [place + 1 for place, part in enumerate(said[:-1]) if part == "--out"]
    out = said[places[-1]] if places else "None"
    if out == "None":
        return "run/features/" if arguments[:1] == ["features"] else None
    thing = out.split("/")[0]
    others = [part for place, part in enumerate(said) if place not in places]
    reads = any(part.split("/")[0] == thing or f"{part}/".startswith(f"{world.path(thing)}/") for part in others)
    return None if reads else f"{out}/"


def _judged(arguments: list[str], ended: Ended) -> tuple[str, str, str]:
    return ended.kind, " ".join(map(repr, arguments)), ended.said
