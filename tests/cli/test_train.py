"""`expander train` from the outside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expander_sae.activations.store import StoreWriter
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.cli.main import main

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
    main(arguments(store, out, "--also", "dense", "matched", "8"))
    names = {"uniform-d4-n64-topk4", "dense-n64-topk4", "dense-n8-topk4", "uniform-d8-n64-topk4"}
    assert {path.name for path in out.iterdir()} == names | {"checkpoint"}
    printed = capsys.readouterr().out
    for name in names:
        assert SparseAutoencoder.load(out / name).provenance["tokens"] == 640
        assert name in printed
    main(arguments(store, out, "--also", "dense", "matched", "8", "--resume"))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--k", "65"], "k must be between 1 and the number of features, 64, not 65."),
        (["--d", "33"], "d must be between 1 and the width of the activations, 32, not 33."),
        (["--also", "tiny"], "--also takes a number of values per column, dense or matched, not 'tiny'."),
        (["--resume"], "holds no checkpoint to resume from"),
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
