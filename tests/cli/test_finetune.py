"""`expander finetune` from the outside, on dictionaries trained on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expander_sae import SparseAutoencoder
from expander_sae.cli.main import main
from tests.activations.prose import write_prose
from tests.cli.test_eval import refused
from tests.evaluation.subjects import random


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """Two dictionaries trained on the tiny model's activations."""
    folder = tmp_path_factory.mktemp("run")
    prose = write_prose(folder, documents=200)
    main(["harvest", str(tiny_model_folder), "--out", str(folder / "acts"), "--hookpoint", "layers.1",
          "--tokens", "2000", "--text", prose.text, "--context", "32", "--bos", "True"])  # fmt: skip
    main(["train", str(folder / "acts"), "--out", str(folder / "run"), "--n", "32", "--d", "4", "--k", "3",
          "--tokens", "1280", "--batch", "64", "--objective", "fidelity",
          "--also", "dense", "--no-progress"])  # fmt: skip
    return folder / "run"


SHORT = ["--tokens", "600", "--batch", "128", "--no-progress"]


def test_a_run_says_itself_what_it_is_to_be_fine_tuned_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    main(["finetune", str(run / "learned-d4-n32-omp3"), "--out", str(out), *SHORT, "--fvu-weight", "0.5"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "From the first batches to the last: KL " in printed
    assert printed.endswith("tuned.")
    sae = SparseAutoencoder.load(out)
    assert sae.provenance["finetuned"]["fvu_weight"] == 0.5
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["tokens"] == 600
    main(["finetune", str(run / "learned-d4-n32-omp3"), "--out", str(out), *SHORT, "--fvu-weight", "0.5", "--resume"])
    capsys.readouterr()
    main(["eval", str(out), "--tokens", "300"])
    assert "held-out, context 32, with BOS" in " ".join(capsys.readouterr().out.split())


def test_refusals(run: Path, tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "tuned"), *SHORT]
    one = str(run / "learned-d4-n32-omp3")
    random(16).save(tmp_path / "unknown")
    unknown = ["finetune", str(tmp_path / "unknown"), *out]
    prose = ["--text", write_prose(tmp_path).text]
    model = ["--model", str(tiny_model_folder)]
    assert "holds 2 autoencoders" in refused(["finetune", str(run), *out], capsys)
    assert "There is no folder" in refused(["finetune", str(tmp_path / "nowhere"), *out], capsys)
    assert "give a text" in refused(unknown, capsys)
    assert "give --model" in refused([*unknown, *prose], capsys)
    assert "give the hookpoint" in refused([*unknown, *prose, *model], capsys)
    assert "32 wide" in refused([*unknown, *prose, *model, "--hookpoint", "layers.1.mlp.up_proj"], capsys)
    assert "ask for fewer" in refused(["finetune", one, "--out", str(tmp_path / "tuned"), "--tokens", "100000"], capsys)
    assert "is what is read" in refused(["finetune", one, "--out", one, *SHORT], capsys)
    assert "holds no checkpoint" in refused(["finetune", one, *out, "--resume"], capsys)
