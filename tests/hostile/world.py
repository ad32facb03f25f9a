"""Small ones of everything that commands read and write, made by the commands themselves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.hostile.children import command
from tests.tiny import LINES, make_model, make_tokenizer

TRAIN = ["--k", "4", "--batch", "64", "--tokens", "1024", "--checkpoint-every", "256", "--log-every", "4",
         "--no-progress", "--device", "cpu"]  # fmt: skip
STUDIES: Mapping[str, list[str]] = {
    "frontier": ["--synthetic", "--degrees", "2", "--n", "96", "--k", "4", "--tokens", "1024", "--batch", "256",
                 "--sub-vectors", "16", "--evaluation-tokens", "128"],
    "supports": ["--synthetic", "--d", "2", "--degrees", "1", "--clusters", "1", "--n", "96", "--k", "4", "--tokens",
                 "512", "--batch", "256", "--seeds", "0", "--evaluation-tokens", "128"],
    "amortisation": ["--synthetic", "--degrees", "2", "--n", "96", "--k", "4", "--tokens", "512", "--batch", "256",
                     "--seeds", "0", "--hidden", "8", "--mlp-tokens", "256", "--evaluation-tokens", "128"],
    "recovery": ["--m", "32", "--d", "3", "--n-over-m", "2", "3", "--k-over-m", "0.05", "0.1", "--tokens", "4",
                 "--sets", "5", "--dictionaries", "uniform", "dense"],
    "coding": ["--m", "16", "--n", "32", "--d", "3", "--k", "2", "--seeds", "0", "--samples", "256", "--tokens", "512",
               "--solver-tokens", "256", "--batch", "128", "--hidden", "8", "--steps", "5", "--refining-steps", "2",
               "--test-tokens", "64"],
    "scaling": ["--synthetic", "--n", "96", "192", "384", "--k", "2", "4", "--d", "2", "4", "--tokens", "256", "512",
                "--batch", "256", "--evaluation-tokens", "128"],
    "planted": ["--m", "64", "--n", "128", "--d", "4", "--k", "3", "--tokens", "16"],
}  # fmt: skip
"""Every study, small."""
WHEN = {"seconds", "tokens_per_second", "milliseconds", "checksum", "ms"}
"""Entries of JSON files that tell of time, or are the sum of all the others."""


@dataclass(frozen=True)
class World:
    """A folder with a model, a text, a store, dictionaries, a feature database and a study; nothing writes into it."""

    place: Path

    def path(self, name: str) -> str:
        """A thing in it."""
        return str(self.place / name)

    @classmethod
    def in_folder(cls, place: Path) -> World:
        """The world that is there, or a new one."""
        return cls(place) if place.exists() else cls.make(place)

    @classmethod
    def make(cls, place: Path) -> World:
        """Make all of it."""
        world = cls(place)
        place.mkdir(parents=True)
        tokenizer = make_tokenizer()
        make_model(tokenizer).save_pretrained(place / "model")
        tokenizer.save_pretrained(place / "model")
        (place / "text.jsonl").write_text("".join(
            json.dumps({"text": " ".join(f"{number} {line}" for line in LINES)}) + "\n" for number in range(60)
        ))  # fmt: skip
        (place / "loop").symlink_to("loop")
        for arguments in world.commands.values():
            ended = command(arguments, place).wait()
            assert ended.status == 0, (arguments, ended)
        return world

    @cached_property
    def commands(self) -> dict[str, list[str]]:
        """How its things are made, in an order that works."""
        store, run = self.path("store"), self.path("run")
        return {
            "store": self.harvest(store),
            "run": self.train(run),
            "dense": ["train", store, "--out", self.path("dense"), "--n", "24", *TRAIN],
            "pursued": [
                "train",
                store,
                "--out",
                self.path("pursued"),
                "--n",
                "32",
                "--d",
                "3",
                "--coder",
                "omp",
                "--construction",
                "uniform",
                *TRAIN,
            ],
            "database": self.features(run, []),
            "foreign": ["export", run, "--to", "sparsify", "--out", self.path("foreign"), "--coder", "topk:4"],
            "study": self.study("recovery", self.path("study")),
        }

    def harvest(self, out: str) -> list[str]:
        """A store."""
        return ["harvest", self.path("model"), "--out", out, "--hookpoint", "layers.1", "--tokens", "1500", "--text",
                self.path("text.jsonl"), "--context", "32", "--tokens-per-batch", "64", "--tokens-per-shard",
                "256"]  # fmt: skip

    def train(self, out: str) -> list[str]:
        """An expander dictionary on that store."""
        return ["train", self.path("store"), "--out", out, "--n", "32", "--d", "3", *TRAIN]

    def finetune(self, out: str) -> list[str]:
        """The same, fine-tuned."""
        return ["finetune", self.path("run"), "--out", out, "--tokens", "768", "--batch", "64", "--checkpoint-every",
                "128", "--log-every", "2", "--no-progress", "--device", "cpu"]  # fmt: skip

    def features(self, run: str, more: list[str]) -> list[str]:
        """What its features fire on."""
        return ["features", run, "--store", self.path("store"), "--tokens", "1500", "--strongest", "3", "--drawn", "1",
                "--related", "2", "--nearest", "2", "--lens", "2", *more]  # fmt: skip

    def quality(self, out: str) -> list[str]:
        """How readable they are."""
        return ["quality", self.path("run"), "--out", out, "--tokens", "1000", "--part", "all", "--features", "8",
                "--effects", "2", "--shown", "2"]  # fmt: skip

    def study(self, name: str, out: str) -> list[str]:
        """A study."""
        return ["study", name, "--out", out, *STUDIES[name]]

    def copy(self, name: str, to: Path) -> Path:
        """A thing of it, to be spoiled."""
        shutil.rmtree(to, ignore_errors=True)
        return Path(shutil.copytree(self.place / name, to))

    def fingerprint(self) -> dict[str, str]:
        """What all files of it hold."""
        return {
            str(path.relative_to(self.place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.place.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }


def content(folder: Path) -> dict[str, Any]:
    """What the files of a folder say, without what tells of time; leftovers of killed processes count as files."""
    return {
        str(path.relative_to(folder)): _said(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "seconds.json"
    }


def _said(path: Path) -> Any:
    data = path.read_bytes()
    if path.suffix == ".json":
        return _timeless(json.loads(data))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in data.splitlines()]
    return hashlib.sha256(data).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if key not in WHEN}
    return [_timeless(entry) for entry in value] if isinstance(value, list) else value


def without_metrics(value: Any) -> Any:
    """What a JSON file says, without the row of metrics that training ended with."""
    if isinstance(value, dict):
        return {key: without_metrics(entry) for key, entry in value.items() if key != "metrics"}
    return value


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of files that differ or are missing on one side."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name, ...) != other.get(name, ...))
