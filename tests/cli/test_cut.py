"""`expander cut` on a small store."""

from pathlib import Path

import pytest

import expander_sae as xs
from expander_sae.cli.main import main
from expander_sae.training import train
from tests.activations.stores import WIDTH, harvest


def test_it_writes_a_smaller_dictionary_and_refuses_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harvest(tmp_path / "acts")
    store = xs.Store.open(tmp_path / "acts")
    config = xs.TrainConfig(n=20, d=3, k=2, objective="fidelity", tokens=256, batch=64)
    train(store, config, out=tmp_path / "run", progress=False)
    cut = ["cut", str(tmp_path / "run"), str(tmp_path / "acts"), "--d"]
    main([*cut, "2", "--out", str(tmp_path / "small")])
    assert "40 of 60 values are left" in capsys.readouterr().out
    small = xs.SparseAutoencoder.load(tmp_path / "small")
    assert (small.m, small.dictionary.learned_values) == (WIDTH, 40)
    for arguments in ([*cut, "3", "--out", str(tmp_path / "x")], [*cut, "2", "--out", str(tmp_path / "run")]):
        with pytest.raises(SystemExit, match="1"):
            main(arguments)
        assert capsys.readouterr().err.startswith("expander: ")
    assert not (tmp_path / "x").exists()
