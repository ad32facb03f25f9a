"""`expander train` from the outside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import LanguageModel, load_language_model
from expander_sae.activations.store import StoreWriter
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.cli.main import main
from expander_sae.training import read_metrics
from tests.activations.prose import write_prose

M = 32


@pytest.fixture
def store(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    x, numbers = torch.randn(512, M), torch.arange(512, dtype=torch.int32)
    with StoreWriter(tmp_path / "acts", width=M, dtype=torch.float16, tokens_per_shard=512, origin={}) as writer:
        writer.append(x, numbers, torch.zeros_like(numbers), numbers)
        writer.finish()
    return tmp_path / "acts"


def arguments(store: Path, out: Path, *more: str) -> list[str]:
    sizes = ["--n", "64", "--k", "4", "--d", "4", "--tokens", "640", "--batch", "64"]
    return ["train", str(store), "--out", str(out), *sizes, *more]


def test_several_dictionaries_in_one_pass(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    several = ["--objective", "fidelity", "--also", "dense", "matched", "8"]
    main(arguments(store, out, *several))
    names = {"learned-d4-n64-omp4", "dense-n64-topk4", "dense-n8-topk4", "learned-d8-n64-omp4"}
    assert {path.name for path in out.iterdir()} == names | {"checkpoint"}
    printed = capsys.readouterr().out
    for name in names:
        assert SparseAutoencoder.load(out / name).provenance["tokens"] == 640
        assert name in printed
    main(arguments(store, out, *several, "--resume"))


def test_what_torchrun_starts_again_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a checkpoint if there is one, and else anew."""
    again = arguments(store, tmp_path / "run", "--coder", "topk")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    main(again)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    main(again)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == rows
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    with pytest.raises(SystemExit):
        main(again)
    assert "already holds a run" in capsys.readouterr().err


def test_processes_that_would_wait_for_dead_ones_are_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("TORCHELASTIC_MAX_RESTARTS", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(SystemExit):
        main(arguments(store, tmp_path / "run", "--coder", "topk"))
    assert "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--k", "65"], "k must be between 1 and the number of features, 64, not 65."),
        (["--d", "33"], "d must be between 1 and the width of the activations, 32, not 33."),
        (["--also", "tiny"], "--also takes a number of values per column, dense or matched, not 'tiny'."),
        (["--resume"], "holds no checkpoint to resume from"),
        (["--coder", "topk", "--feature-shards", "2"], "1 processes cannot hold 2 shards of the features"),
    ],
)
def test_refusals(
    more: list[str], sentence: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments(store, tmp_path / "run", *more))
    assert exit_.value.code == 1
    printed = capsys.readouterr().err.strip()
    assert sentence in printed
    assert printed.count("\n") == 0


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_prose(tmp_path)


SIZES = ["--n", "32", "--k", "3", "--d", "4", "--tokens", "640", "--batch", "64"]
CUT = ["--hookpoint", "layers.1", "--part", "all", "--context", "32", "--tokens-per-batch", "128"]


def test_straight_from_a_model(
    tiny_model_folder: Path, text: TextConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", "--model", str(tiny_model_folder), "--text", text.text, "--out", str(out), *CUT, *SIZES]
    main([*command, "--also", "dense"])
    assert "were left out" in capsys.readouterr().out
    origin = SparseAutoencoder.load(out / "dense-n32-topk3").provenance["activations"]
    expected = {
        "model": str(tiny_model_folder),
        "hookpoint": "layers.1",
        "text": text.text,
        "context": 32,
        "bos": False,
    }
    assert {name: origin[name] for name in expected} == expected
    main([*command, "--also", "dense", "--resume"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "Give either the folder of a store to train on or --model NAME, one of the two."),
        (["acts", "--model", "smollm2"], "Give either the folder of a store"),
        (["acts", "--hookpoint", "layers.3"], "A store has its hookpoint and its text already"),
        (["acts", "--model-precision", "bfloat16"], "A store has its hookpoint and its text already"),
        (["acts", "--context", "64"], "A store has its hookpoint and its text already"),
        (["acts", "--ce-every", "-1"], "ce_every must be at least 0, not -1."),
    ],
)
def test_contradictions(given: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", *given, "--out", str(tmp_path / "run"), *SIZES])
    assert capsys.readouterr().err.startswith(f"expander: {sentence}")
    assert not (tmp_path / "run").exists()


class FakeProbe:
    """Keeps what it was made with, and gives a number."""

    made: tuple[LanguageModel, str, TextConfig, int]
    massive_above: float | None

    def __init__(
        self,
        language_model: LanguageModel,
        hookpoint: str,
        text: TextConfig,
        tokens: int,
        *,
        massive_above: float | None,
    ) -> None:
        FakeProbe.made, FakeProbe.massive_above = (language_model, hookpoint, text, tokens), massive_above

    def __call__(self, sae: SparseAutoencoder) -> Mapping[str, float]:
        return {"ce": 1.5}


def test_the_probe_is_made_of_what_the_store_says(
    tiny_model_folder: Path, text: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expander_sae.evaluation.LossProbe", FakeProbe)
    acts, out = tmp_path / "acts", tmp_path / "run"
    (store,) = harvest(load_language_model(tiny_model_folder), ["layers.1"], tokens=600, out=acts, text=text).values()
    main(["train", str(acts), "--out", str(out), "--ce-every", "256", "--ce-tokens", "99", *SIZES])
    language_model, *rest = FakeProbe.made
    assert language_model.name == str(tiny_model_folder)
    assert rest == ["layers.1", TextConfig(text.text, "held-out", context=32, bos=False, tokens_per_batch=128), 99]
    assert FakeProbe.massive_above == store.massive_above
    assert [row["tokens"] for row in read_metrics(out / "metrics.jsonl") if "ce" in row] == [256, 512, 640]


@pytest.mark.parametrize("source", ["store", "float32", "bfloat16"])
def test_the_loss_of_the_language_model_is_in_the_metrics(
    source: str, tiny_model_folder: Path, text: TextConfig, tmp_path: Path
) -> None:
    acts, out = tmp_path / "acts", tmp_path / "run"
    if source == "store":
        harvest(load_language_model(tiny_model_folder), ["layers.1"], tokens=600, out=acts, text=text)
        command = ["train", str(acts)]
    else:
        command = ["train", "--model", str(tiny_model_folder), "--text", text.text, *CUT]
        command += ["--model-precision", source]
    main([*command, "--out", str(out), "--ce-every", "320", "--ce-tokens", "64", *SIZES])
    measured = [row for row in read_metrics(out / "metrics.jsonl") if "ce" in row]
    assert [row["tokens"] for row in measured] == [320, 640]
    assert all(row["ce"] > 0 for row in measured)
    precision = SparseAutoencoder.load(out).provenance["activations"]["precision"]
    assert precision == ("float32" if source == "store" else source)


def test_a_store_of_unknown_origin_has_no_language_model(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments(store, tmp_path / "run", "--ce-every", "100"))
    assert "does not say which language model and text it comes from" in capsys.readouterr().err


def test_resuming_with_a_store_of_another_width_loses_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    main(arguments(store, out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    x, numbers = torch.randn(512, M // 2), torch.arange(512, dtype=torch.int32)
    with StoreWriter(tmp_path / "narrow", width=M // 2, dtype=torch.float16, origin={}) as writer:
        writer.append(x, numbers, torch.zeros_like(numbers), numbers)
        writer.finish()
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "narrow", out, "--resume"))
    printed = capsys.readouterr().err
    assert "was trained on activations of width 32, not 16; resume with the same ones" in printed
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_place_of_the_folder(
    below: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("hello")
    with pytest.raises(SystemExit):
        main(arguments(store, tmp_path / "file" / below))
    printed = capsys.readouterr().err
    assert "cannot be written" in printed
    assert printed.count("\n") == 1
