"""Training that goes on from another run's autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import expander_sae as xs
from expander_sae.training import TensorBatches, train
from tests.training.failing import Failing, fail
from tests.training.planted import config, planted, same_tensors


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[xs.SparseAutoencoder, str]:
    """A dictionary with columns of different lengths, coded by pursuit, and its folder."""
    folder = tmp_path_factory.mktemp("first")
    run = train(planted(4096)[1], again(None, coder="omp", tokens=64 * 60), out=folder, progress=False)
    return run.sae, str(folder)


def again(start: str | None, **changes: Any) -> xs.TrainConfig:
    return config(**({"construction": "learned", "coder": "topk", "start": start, "move_every": 4} | changes))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_stay_and_values_learn(first: tuple[xs.SparseAutoencoder, str], tied: bool) -> None:
    sae, folder = first
    assert isinstance(sae.dictionary, xs.ExpanderDictionary)
    assert not sae.dictionary.support.is_even
    x = planted(4096)[1]
    run = train(x, again(folder, tied=tied, tokens=64 * 100), progress=False)
    assert run.sae.dictionary.support == sae.dictionary.support  # type: ignore[union-attr]  # an ExpanderDictionary
    assert run.metrics[-1]["fvu"] < 0.8 * run.metrics[0]["fvu"]
    fresh = train(x, again(None, tied=tied, tokens=64 * 100, construction="uniform"), progress=False)
    assert run.metrics[-1]["fvu"] < fresh.metrics[-1]["fvu"]


def test_the_same_coder_starts_where_the_other_run_ended(first: tuple[xs.SparseAutoencoder, str]) -> None:
    sae, folder = first
    x = planted(4096)[1]
    run = train(x, again(folder, coder=None, tokens=64, log_every=1, learning_rate=1e-9), progress=False)
    torch.testing.assert_close(run.sae(x[:100]), sae(x[:100]), rtol=1e-3, atol=1e-3)


def test_it_resumes_and_finds_other_rows(first: tuple[xs.SparseAutoencoder, str], tmp_path: Path) -> None:
    _, folder = first
    x = planted(2048)[1]
    whole = again(folder, tokens=64 * 12, checkpoint_every=64 * 6)
    expected = train(x, whole, progress=False)
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, 256 + 8, fail), whole, out=tmp_path / "run", progress=False)
    resumed = train(TensorBatches(x, batch=64), whole, out=tmp_path / "run", resume=True, progress=False)
    assert same_tensors(resumed.sae, expected.sae)


def test_other_sizes_are_refused(first: tuple[xs.SparseAutoencoder, str]) -> None:
    _, folder = first
    x = planted(2048)[1]
    with pytest.raises(xs.ExpanderError, match="training from it needs the same"):
        train(x, again(folder, d=1), progress=False)
    with pytest.raises(xs.ExpanderError, match="training from it needs the same"):
        train(x, again(folder, d=None, construction="uniform"), progress=False)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of mixtures of atoms."""
    folder = tmp_path_factory.mktemp("mixed")
    settings = again(None, coder=None, atoms=24, dead_after=256, tokens=64 * 60)
    train(planted(4096)[1], settings, out=folder, progress=False)
    return str(folder)


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"coder": "omp"}], ids=str)
def test_mixtures_go_on_with_their_atoms_and_resume(mixed: str, changes: dict[str, Any], tmp_path: Path) -> None:
    before = xs.SparseAutoencoder.load(mixed).dictionary
    x = planted(2048)[1]
    whole = again(mixed, tokens=64 * 12, checkpoint_every=64 * 6, **changes)
    expected = train(x, whole, progress=False)
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, 256 + 8, fail), whole, out=tmp_path / "run", progress=False)
    resumed = train(TensorBatches(x, batch=64), whole, out=tmp_path / "run", resume=True, progress=False)
    assert same_tensors(resumed.sae, expected.sae)
    after = resumed.sae.dictionary
    assert isinstance(before, xs.ComposedDictionary)
    assert isinstance(after, xs.ComposedDictionary)
    assert torch.equal(after.mixtures.rows, before.mixtures.rows)
    assert not torch.equal(after.atoms.values, before.atoms.values)
    assert expected.metrics[-1]["fvu"] < expected.metrics[0]["fvu"]


def test_mixtures_of_fewer_values_than_they_have_are_refused(mixed: str) -> None:
    with pytest.raises(xs.ExpanderError, match="training from it needs the same"):
        train(planted(512)[1], again(mixed, d=1), progress=False)
