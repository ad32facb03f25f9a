"""README and docs do what they say: every block and every command of every page is run, in order, with small numbers.

A page runs in a folder of its own, with a tiny model in the place of smollm2. It finds there what PRESUMED says that it
presupposes, and nothing else. What is only read by its command's own parser, or not run, stands in lists with a reason.
`test_tutorials.py` runs look.md and steer.md on the real model.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import partial
from glob import glob
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import expander_sae as xs
from expander_sae import server
from expander_sae.cli.asking import asked_for
from expander_sae.cli.commands import NAMES
from expander_sae.cli.main import main
from expander_sae.cli.study import STUDIES, Page
from expander_sae.evaluation import LossProbe
from expander_sae.studies.demo.config import DemoConfig
from tests.docs.blocks import PAGES, ROOT, Block, blocks, inline_commands
from tests.docs.world import furnish, make_stock
from tests.interop.fake_hub import serving

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

ON_THE_REAL_MODEL = {"docs/look.md", "docs/steer.md"}
"""Pages of test_tutorials.py."""

TEXTS = dict.fromkeys(["train.jsonl", "prose.jsonl"], "text")
LABELLED = dict.fromkeys(["words.jsonl", "word_classes.jsonl", "held_out.jsonl"], "labels")
PRESUMED = {
    "docs/certificates.md": {"runs/a": "readable", "runs/uniform-d7": "uniform", "acts": "acts"},
    "docs/choosing.md": {"d32": "wide", "dense": "dense", **TEXTS, **LABELLED},
    "docs/ecosystem.md": {"RUN": "dense", "tied.pt": "paper", "acts": "acts", **TEXTS},
    "docs/evaluation.md": {"runs/a": "readable", "runs/b": "topk", **TEXTS},
    "docs/experiments.md": {"acts": "acts", "other": "acts", "others": "acts", **LABELLED},
    "docs/features.md": {"runs/a": "readable", "runs/b": "topk", "acts": "acts", **TEXTS},
    "docs/library.md": {"acts": "acts", "runs/a": "readable", **TEXTS},
    "docs/paper.md": {
        "acts": "acts", "dense": "dense", "revived": "topk", "random-rows": "uniform", "fidelity-d7": "wide",
        **TEXTS, **LABELLED,
    },
    "docs/readable.md": {
        "runs/a": "readable", "runs/sparse": "readable", "runs/other-seed": "readable", **TEXTS, **LABELLED
    },
    "docs/training.md": {"acts": "acts", "dense2304": "narrow"},
}  # fmt: skip
"""What a page takes for given, by the name that it has there, out of tests/docs/world.py."""

ALTERNATIVES = {"docs/features.md": "runs/*/features"}
"""Pages whose commands are ways to make the same thing: what is there of it is taken away before each."""

ONLY_PARSED = {
    "expander demo": "tests/end_to_end runs it on the real model",
    "expander study": "tests/studies runs every study, with settings that fit it",
    "expander push": "needs a hub; tests/cli/test_push.py has one",
    "expander pull": "needs a hub; tests/cli/test_push.py has one",
    "expander quality runs/a --sequences": "needs the package sae-probes, which is not among the development packages",
    "expander quality runs/a --judge": "needs a language model behind an address; tests/cli/test_quality.py has one",
}
"""Commands, by their beginning, that are read by their own parser and checked, but not carried out."""

NOT_RUN = {
    ("docs/architecture.md", "mermaid"): "a picture; tests/test_architecture.py holds it against the imports",
    (
        "docs/features.md",
        "sql",
    ): "needs DuckDB; tests/features/test_documentation.py holds the columns against the files",
    ("docs/file-format.md", "text"): "names of files, not commands; tests/autoencoder holds them against folders",
    ("docs/saebench.md", "python"): "needs SAEBench; tests/peers does the same, in the environment that has SAELens",
    ("docs/ecosystem.md", "import sae_lens"): "tests/peers, in the environment that has SAELens, opens such folders",
}
"""Blocks that are not code of ours, by their language or what they begin with."""

NO_COMMANDS: dict[tuple[str, str], str] = {
    (
        "CHANGELOG.md",
        "expander export RUN --to saelens|saelens_sparse|sparsify|dictionary_learning",
    ): "a choice of four",
}
"""What looks like a command within a sentence and cannot be typed."""
COMPLETED = {"train": ["--out", "OUT", "--n", "64", "--d", "4", "--k", "4"], "import": ["--out", "OUT"]}
"""What a command needs beside the options that a sentence names."""

SMALLER = [
    (r"k=16\)\)", "k=4, tokens=1024, batch=128))"),
    (r"(?<![\w/-])smollm2(?![\w-])", "MODEL"),
    (r"layers\.12\b", "layers.1"),
    (r"--layer 12\b", "--layer 1"),
    (r"--tokens \d+", "--tokens 1024"),
    (r"--n 2304\b", "--n 32"),
    (r"--n (?!32\b)\d+", "--n 64"),
    (r"\bn=(4608|16384)\b", "n=64"),
    (r"\bm=2048\b", "m=64"),
    (r"1024, 2048\b", "1024, 64"),
    (r"--d (7|8)\b", "--d 4"),
    (r"--d 32\b", "--d 8"),
    (r"--k 16\b", "--k 4"),
    (r"\bk=(16|32)\b|\bk=\(32,\)", lambda found: "k=(4,)" if "(" in found[0] else "k=4"),
    (r"\b(topk|omp):(16|32)", r"\1:4"),
    (r"--atoms 2304\b", "--atoms 32"),
    (r"2\*\*20", "2**8"),
    (r"tokens=(50_000|8192)\b", "tokens=1000"),
    (r"batch=1024\b", "batch=128, window=1024"),
    (r"--text python\b", "--text python --window 1024"),
    (r"--coder topk --look 0\.05", "--coder topk --look 0.05 --batch 256"),  # the fewest that groups are made for
    (r"\bNAME\b", "learned-d4-n64-candidates4"),
    (r"learned-d7-n4608-candidates16", "learned-d4-n64-candidates4"),
]  # fmt: skip
"""What stands in the pages, and what is run: a tiny model, few tokens, few features."""

SHORTER = {
    "train": "--tokens 1024 --batch 128 --no-progress",
    "finetune": "--tokens 512 --batch 256 --no-progress",
    "eval": "--tokens 500",
    "quality": "--tokens 1500 --features 8 --effects 2 --shown 2",
    "certify": "--supports 50 --restarts 2",
    "steer": "--tokens 4",
}
"""Options of a command that make it short; what the page says of them wins."""


def smaller(text: str) -> str:
    for large, small in SMALLER:
        text = re.sub(large, small, text)
    return text


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """The tiny model, made for contexts as long as those that are cut by default."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(tiny_model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 256}))
    return folder


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """What pages presuppose."""
    folder = tmp_path_factory.mktemp("stock")
    (folder / "MODEL").symlink_to(model)
    with chdir(folder):
        make_stock()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ON_THE_REAL_MODEL and blocks(page)])
def test_every_block_of_a_page_runs(
    page: str, stock: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path, stock, PRESUMED.get(page, {}))
    (tmp_path / "MODEL").symlink_to(model)
    monkeypatch.setattr(server, "serve", lambda live, folder, **_: None)  # it would not end
    with names_on(page) as names:
        for block in blocks(page):
            if reason_not_to_run(block):
                continue
            if block.language == "python":
                code = "\n" * (block.line - 1) + smaller(block.text)
                exec(compile(code, page, "exec"), names)
            else:
                assert not block.language, f"{page}:{block.line} is in a language that nothing here runs"
                for command in block.commands:
                    for folder in glob(ALTERNATIVES.get(page, "")):
                        shutil.rmtree(folder)
                    carry_out(command)


@pytest.mark.parametrize("page", [page for page in PAGES if inline_commands(page)])
def test_every_command_that_a_sentence_names_is_there(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a command holds what it would write to, and pages are tried side by side
    for command in inline_commands(page):
        name, *arguments = shlex.split(re.sub(r"\b[NP]\b", "64", command).removesuffix(" ..."))[1:]
        if (page, command) not in NO_COMMANDS:
            assert name in NAMES, command
            if arguments and name != "study" and arguments != ["--help"]:
                parse([name, *COMPLETED.get(name, []), *arguments])


def test_every_reason_is_still_one() -> None:
    """No list names a page, a command or a block that is not there any more."""
    there = [block for page in PAGES for block in blocks(page)]
    commands = [command for block in there if not block.language for command in block.commands]
    assert all(any(command.startswith(each) for command in commands) for each in ONLY_PARSED)
    assert {reason_not_to_run(block) for block in there} >= set(NOT_RUN.values())
    assert {*PRESUMED, *ON_THE_REAL_MODEL} <= set(PAGES)
    assert all(command in inline_commands(page) for page, command in NO_COMMANDS)


def reason_not_to_run(block: Block) -> str | None:
    """Why a block is not run, if it is not."""
    reasons = (
        reason
        for (page, kind), reason in NOT_RUN.items()
        if page == block.page and (kind == block.language or block.text.startswith(kind))
    )
    return next(reasons, None)


@contextmanager
def names_on(page: str) -> Iterator[dict[str, Any]]:
    """What the code of a page takes for given."""
    names: dict[str, Any] = {"torch": torch, "xs": xs}
    if page == "docs/features.md":
        names["sae"] = xs.SparseAutoencoder.load("runs/a")
    elif page == "docs/training.md":
        config = xs.TrainConfig(n=64, d=4, k=4, objective="fidelity", tokens=1024, batch=128)
        names |= {
            "language_model": xs.load_language_model("MODEL"), "store": xs.Store.open("acts"), "config": config,
            "text": xs.TextConfig("python", part="held-out"), "x": torch.randn(1024, 16), "LossProbe": LossProbe,
        }  # fmt: skip
    elif page == "docs/ecosystem.md":
        with serving() as (_, endpoint):
            options = {"endpoint": endpoint, "token": "hf_" + "a" * 34}
            names["sae"] = xs.SparseAutoencoder.load("RUN")
            names["xs"] = SimpleNamespace(
                push_to_hub=partial(xs.push_to_hub, **options), from_pretrained=partial(xs.from_pretrained, **options)
            )
            yield names
        return
    yield names


def carry_out(command: str) -> None:
    """Run a command of expander; of others see that what they name is there, or what they start is understood."""
    program, *arguments = shlex.split(smaller(command), comments=True)
    if program == "pip":
        (wanted,) = arguments[1:]
        extras = re.findall(r"\w+", wanted)
        assert set(extras) <= set(PROJECT["optional-dependencies"]), command
    elif program == "make":
        assert set(arguments) <= set(TARGETS), command
    elif program.endswith("/python"):  # a module of ours, with an environment that is not this one
        assert arguments[0] == "-m", command
        assert (ROOT / f"{arguments[1].replace('.', '/')}.py").is_file(), command
    elif program == "export":
        assert re.fullmatch(r"\w+=\S+", arguments[0]), command
    elif program == "torchrun":  # tests/training and tests/activations start several processes
        parse(arguments[arguments.index("expander_sae") + 1 :])
    else:
        assert program == "expander", command
        arguments = [found for each in arguments if each != "..." for found in sorted(glob(each)) or [each]]
        if any(command.startswith(beginning) for beginning in ONLY_PARSED):
            parse(arguments)
        else:
            main(shortened(arguments))


def shortened(arguments: list[str]) -> list[str]:
    """With the options that make the command short and that it does not have."""
    options = re.findall(r"(--\S+)((?: [^-]\S*)*)", SHORTER.get(arguments[0], ""))
    return arguments + [word for name, value in options if name not in arguments for word in (name, *value.split())]


def parse(arguments: list[str]) -> None:
    """Read a command line by its command's own parser, and check what it asks for."""
    name, *rest = arguments
    if name == "study":
        study, *rest = rest
        assert study in {*STUDIES, "page"}
        if not rest:
            return  # only named
        kind = Page if study == "page" else import_module(f"expander_sae.studies.{study}").STUDY.config
    elif name == "demo":
        kind = DemoConfig
    else:
        kind = getattr(import_module(f"expander_sae.cli.{name}"), name.capitalize())
    asked_for(kind, f"expander {name}", rest)
