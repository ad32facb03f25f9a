"""`expander grow` on a small store, and training from what it wrote."""

from pathlib import Path

import pytest

import expander_sae as xs
from expander_sae.cli.main import main
from expander_sae.training import train
from tests.activations.stores import WIDTH, harvest


def test_it_grows_a_dense_dictionary_that_training_goes_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harvest(tmp_path / "acts")
    store = xs.Store.open(tmp_path / "acts")
    train(store, xs.TrainConfig(n=12, k=2, tokens=256, batch=64), out=tmp_path / "dense", progress=False)
    grow = ["grow", str(tmp_path / "dense"), str(tmp_path / "acts"), "--d", "3", "--n"]
    main([*grow, "20", "--out", str(tmp_path / "grown")])
    assert "20 features, 12 of them atoms" in capsys.readouterr().out
    grown = xs.SparseAutoencoder.load(tmp_path / "grown")
    assert (grown.m, grown.n, grown.tied) == (WIDTH, 20, False)
    main(["train", str(tmp_path / "acts"), "--start", str(tmp_path / "grown"), "--n", "20", "--d", "3", "--k", "2",
          "--coder", "topk", "--no-tied", "--hold-encoder", "--tokens", "256", "--batch", "64",
          "--out", str(tmp_path / "run")])  # fmt: skip
    assert xs.SparseAutoencoder.load(tmp_path / "run").n == 20
    for arguments in ([*grow, "12", "--out", str(tmp_path / "x")], [*grow, "9999", "--out", str(tmp_path / "x")],
                      [*grow, "20", "--out", str(tmp_path / "dense")]):  # fmt: skip
        capsys.readouterr()
        with pytest.raises(SystemExit, match="1"):
            main(arguments)
        assert capsys.readouterr().err.startswith("expander: ")
    assert not (tmp_path / "x").exists()
