"""A dense dictionary of another library goes through every command, as one of ours does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import expander_sae as xs
from expander_sae.cli.main import main
from expander_sae.interop.formats import export_to
from tests.activations.prose import write_prose


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A store of the tiny model's activations."""
    folder = tmp_path_factory.mktemp("acts")
    text = ["--text", write_prose(folder, documents=400).text, "--context", "32"]
    main(["harvest", str(tiny_model_folder), "--out", str(folder / "acts"), "--layer", "1", "--tokens", "2000", *text])
    return folder / "acts"


@pytest.fixture(scope="module", params=["saelens", "sparsify", "dictionary_learning", "jumprelu"])
def imported(request: pytest.FixtureRequest, acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense dictionary with an encoder of its own that came from there."""
    folder = tmp_path_factory.mktemp("imported")
    config = xs.TrainConfig(n=32, k=3, tied=False, tokens=1280, batch=64)
    sae = xs.train(xs.Store.open(acts), config, progress=False).sae
    to, sae = ("saelens", sae.with_coder(xs.JumpReLU())) if request.param == "jumprelu" else (request.param, sae)
    export_to(sae, to, folder / "layers.1")
    main(["import", str(folder / "layers.1"), "--out", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def text(acts: Path) -> list[str]:
    """What a foreign file may not say of itself, as options."""
    origin = xs.Store.open(acts).origin
    return ["--model", origin["model"], "--hookpoint", "layers.1", "--text", origin["text"], "--context", "32"]


def test_it_is_evaluated(imported: Path, text: list[str], tmp_path: Path) -> None:
    main(["eval", str(imported), *text, "--tokens", "300", "--out", str(tmp_path / "eval.json")])
    (found,) = json.loads((tmp_path / "eval.json").read_text())["evaluations"]
    assert 0 < found["fvu"]["value"] < 0.9
    assert found["language_model"]["kl"]["value"] > 0


def test_it_is_judged(imported: Path, text: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["quality", str(imported), *text, "--features", "8", "--effects", "0", "--shown", "2"])
    assert "Readability:" in capsys.readouterr().out


def test_it_is_shown(imported: Path, text: list[str], tmp_path: Path) -> None:
    main(["features", str(imported), *text, "--tokens", "600"])
    main(["dashboard", str(imported), "--out", str(tmp_path / "page")])
    assert (tmp_path / "page" / "index.html").is_file()


def test_its_columns_serve_as_atoms(imported: Path, acts: Path, tmp_path: Path) -> None:
    main(["train", str(acts), "--out", str(tmp_path / "grown"), "--n", "48", "--d", "3", "--k", "3", "--atoms-from",
          str(imported), "--tokens", "1280", "--batch", "64", "--no-progress"])  # fmt: skip
    grown = xs.SparseAutoencoder.load(tmp_path / "grown")
    assert (grown.n, grown.dictionary.atoms.n) == (48, 32)


def test_it_is_stored_in_fewer_bits(imported: Path, tmp_path: Path) -> None:
    main(["compress", str(imported), str(tmp_path / "small")])
    assert xs.SparseAutoencoder.load(tmp_path / "small").n == 32


@pytest.mark.parametrize("objective", ["readable", "fidelity"])
def test_it_becomes_an_expander_dictionary(
    objective: str, imported: Path, acts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    main(["compress", str(imported), str(out), "--d", "4", "--store", str(acts), "--objective", objective,
          "--tokens", "4096", "--measure", "500"])  # fmt: skip
    small = xs.SparseAutoencoder.load(out)
    assert (small.m, small.n, small.dictionary.learned_values) == (16, 32, 128)
    assert small.provenance["training"]["columns_from"] == str(imported)
    printed = " ".join(capsys.readouterr().out.split())
    for measure in ("learned values", "bytes on disk", "FVU", "CE recovered (zero)", "token R2", "firings found again"):
        assert measure in printed


def test_what_cannot_be_measured_is_said_before_any_work(
    imported: Path, acts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    with pytest.raises(SystemExit):
        main(
            ["compress", str(imported), str(out), "--d", "4", "--store", str(acts), "--text", str(tmp_path / "no.txt")]
        )
    assert "no.txt" in capsys.readouterr().err
    assert not out.exists()
