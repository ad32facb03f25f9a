"""A harvest in several processes writes, byte for byte, what one process writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from expander_sae.activations.harvest import harvest
from expander_sae.activations.models import LanguageModel, load_language_model
from expander_sae.activations.store import Store
from tests.activations.prose import write_prose
from tests.processes import torchrun


@pytest.fixture
def language_model(tiny_model_folder: Path) -> LanguageModel:
    return load_language_model(tiny_model_folder, device="cpu")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_stores_are_those_of_one_process(tiny_model_folder: Path, precision: str, tmp_path: Path) -> None:
    text = write_prose(tmp_path)
    language_model = load_language_model(tiny_model_folder, dtype=getattr(torch, precision), device="cpu")
    harvest(
        language_model, ["layers.[01]"], tokens=777, out=tmp_path / "one", text=text, tokens_per_shard=100
    )  # fmt: skip
    command = f"harvest {language_model.name} --out {tmp_path / 'many'} --hookpoint layers.[01] --tokens 777"
    command += f" --precision {precision}"
    options = f"--tokens-per-shard 100 --text {text.text} --part all --context 32 --tokens-per-batch 128"
    done = torchrun("expander_sae", *command.split(), *options.split(), processes=3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("layers.1: 777 tokens") == 1, "only the first process prints"
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_a_dead_process_ends_the_harvest_which_can_go_on(
    language_model: LanguageModel, tmp_path: Path, dying: int
) -> None:
    folders = [language_model.name, str(tmp_path), str(tmp_path / "many")]
    done = torchrun("tests.activations.child_harvest", *folders, str(dying), "1")
    assert done.returncode != 0
    assert f"rank {1 - dying}: Another process of this run died" in done.stderr
    assert "src/expander_sae" not in done.stderr, "a sentence, no traceback of ours"
    held = [Store.open(folder).tokens for folder in sorted((tmp_path / "many").iterdir())]
    assert all(0 < tokens < 600 for tokens in held)
    done = torchrun("tests.activations.child_harvest", *folders, "-1", "0")
    assert done.returncode == 0, done.stderr
    text = write_prose(tmp_path)
    harvest(language_model, ["layers.[01]"], tokens=600, out=tmp_path / "one", text=text, tokens_per_shard=100)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


@pytest.mark.slow
def test_training_from_the_model_in_two_processes_is_that_of_one(language_model: LanguageModel, tmp_path: Path) -> None:
    text = write_prose(tmp_path)
    options = "--n 32 --d 4 --k 3 --tokens 2560 --batch 32 --precision float64 --log-every 5 --window 100"
    probe = "--ce-every 640 --ce-tokens 64"
    cut = "--hookpoint layers.1 --part all --context 32 --tokens-per-batch 128"
    command = ["--model", language_model.name, "--text", text.text, *f"{cut} {options} {probe}".split()]
    runs = []
    for processes in (1, 2):
        out = tmp_path / f"run{processes}"
        done = torchrun("expander_sae", "train", "--out", str(out), *command, processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("were left out") == 1
        runs.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()])
    for ours, theirs in zip(*runs, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"step", "tokens_per_second"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), name
    assert [row["tokens"] for row in runs[0] if "ce" in row] == [640, 1280, 1920, 2560]
