"""`expander eval` from the outside, on dictionaries trained on a tiny model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from expander_sae.cli.main import main
from tests.activations.prose import write_prose
from tests.evaluation.subjects import random


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """Three dictionaries trained on the tiny model's activations."""
    folder = tmp_path_factory.mktemp("run")
    prose = write_prose(folder, documents=200)
    text = ["--text", prose.text, "--context", "32", "--bos", "True"]
    main(["harvest", str(tiny_model_folder), "--out", str(folder / "acts"), "--hookpoint", "layers.1",
          "--tokens", "2000", *text])  # fmt: skip
    main(["train", str(folder / "acts"), "--out", str(folder / "run"), "--n", "32", "--d", "4", "--k", "3",
          "--tokens", "1280", "--batch", "64", "--objective", "fidelity",
          "--also", "dense", "matched", "--no-progress"])  # fmt: skip
    return folder / "run"


def output(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_run_says_itself_what_it_is_to_be_evaluated_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", str(tmp_path / "a.json"), "--out", str(tmp_path / "a.csv")]
    main(["eval", str(run), "--tokens", "300", *files])
    printed = output(capsys)
    for part in ("learned-d4-n32-", "300 tokens of", "held-out, context 32, with BOS", "at layers.1 of",
                 "share of what dense-n32-topk3 recovers", "known from training"):  # fmt: skip
        assert part in printed
    content = json.loads((tmp_path / "a.json").read_text())
    names = [each["name"] for each in content["evaluations"]]
    assert names == ["dense-n32-topk3", "dense-n8-topk3", "learned-d4-n32-omp3"]
    assert content["evaluations"][0]["language_model"]["retention_zero"]["value"] in (1, None)
    with open(tmp_path / "a.csv") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names


def test_one_of_a_run_under_another_coder_and_text(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_prose(tmp_path).text
    main(["eval", str(run / "learned-d4-n32-omp3"), "--coder", "omp:2", "--signed", "--text", text, "--part", "all",
          "--context", "16", "--bos", "False", "--hookpoint", "layers.0", "--tokens", "200"])  # fmt: skip
    printed = output(capsys)
    for part in ("omp:2", "(all, context 16, without BOS), at layers.0", "No retention", "from the evaluated text"):
        assert part in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--coder", "comp:3"], "There is no coder 'comp:3'"),
        (["--signed"], "--signed belongs to the coder"),
        (["--look", "0.1"], "--look belongs to the coder"),
        (["--look", "0.1", "--coder", "omp:2"], "--look is for topk"),
        (["--look", "0", "--coder", "topk:2"], "look must be above 0 and at most 1"),
        (["--reference", "none"], "The reference 'none' is none of the autoencoders"),
        (["--out", "results.txt"], "must end in .json or .csv"),
        (["--hookpoint", "layers.7"], "No module of the model matches 'layers.7'"),
        (["--hookpoint", "layers.1.mlp.up_proj"], "are 32 wide"),
        (["--context", "65"], "longer than the 64"),
        (["--text", "nowhere.txt"], "There is no file or folder 'nowhere.txt'"),
        (["--tokens", "1"], "at least 3 tokens"),
        (["--model", "./nowhere"], "There is no folder './nowhere'"),
    ],
)
def test_refusals(arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence in refused(["eval", str(run), *arguments], capsys)


def test_what_an_autoencoder_does_not_know_must_be_given(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random(16).save(tmp_path / "sae")
    run = ["eval", str(tmp_path / "sae")]
    prose = ["--text", write_prose(tmp_path).text, "--part", "all"]
    assert "give a text" in refused(run, capsys)
    assert "give --model" in refused([*run, *prose], capsys)
    assert "give the hookpoint" in refused([*run, *prose, "--model", str(tiny_model_folder)], capsys)
    (tmp_path / "empty").mkdir()
    assert "There is no autoencoder in" in refused(["eval", str(tmp_path / "empty")], capsys)
    assert "nothing to evaluate" in refused(["eval"], capsys)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    printed = capsys.readouterr().err.strip()
    assert "Traceback" not in printed
    return printed
