"""Columns that begin as those of another autoencoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import expander_sae as xs
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import evaluate_activations
from expander_sae.studies.data import planted_activations
from expander_sae.training import Sample, TensorBatches, TrainConfig, new_autoencoder, train

N, K = 128, 4


@pytest.fixture(scope="module")
def x() -> Float[Tensor, "tokens m"]:
    return planted_activations(2048)


@pytest.fixture(scope="module", params=[True, False])
def dense(request: pytest.FixtureRequest, x: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dense autoencoder, tied or with an encoder of its own."""
    config = TrainConfig(n=N, k=K, tied=request.param, tokens=16384, batch=256)
    folder = tmp_path_factory.mktemp("dense") / "run"
    train(x, config, out=folder, progress=False)
    return folder


def begun(config: TrainConfig, x: Tensor) -> xs.SparseAutoencoder:
    return new_autoencoder(config, Sample.of(TensorBatches(x, batch=config.batch), config.batch))


def config(dense: Path, **changes: object) -> TrainConfig:
    return TrainConfig(**{"n": N, "d": 4, "k": K, "columns_from": str(dense), "tokens": 16384, "batch": 256} | changes)


@pytest.mark.parametrize("objective", ["readable", "fidelity"])
def test_they_begin_as_its_largest_values(dense: Path, x: Tensor, objective: str) -> None:
    before, asked = xs.SparseAutoencoder.load(dense), config(dense, objective=objective)
    count = asked.lengths.longest(x.shape[1]) if objective == "readable" else 4
    ours, theirs = begun(asked, x).dictionary.to_dense().detach(), before.dictionary.to_dense().detach()
    largest = torch.zeros_like(theirs).scatter(0, theirs.abs().topk(count, dim=0).indices, 1.0).bool()
    assert torch.equal(ours != 0, largest)
    torch.testing.assert_close(
        torch.nn.functional.normalize(ours, dim=0), torch.nn.functional.normalize(theirs * largest, dim=0)
    )


def test_mixtures_of_atoms_become_columns_of_coordinates(x: Tensor, tmp_path: Path) -> None:
    mixed = TrainConfig(n=N, d=4, k=K, atoms=32, dead_after=1024, move_every=2, tokens=8192, batch=256)
    before = train(x, mixed, out=tmp_path / "mixed", progress=False).sae.dictionary.to_dense().detach()
    ours = begun(config(tmp_path / "mixed", objective="readable"), x).dictionary.to_dense().detach()
    written = before.norm(dim=0) > 0
    assert written.sum() > 32
    alike = torch.nn.functional.cosine_similarity(ours, before, dim=0)
    assert alike[written].min() > 0.5


def test_tied_norms_and_biases_come_along_at_any_scale(dense: Path, x: Tensor) -> None:
    before = xs.SparseAutoencoder.load(dense)
    after = begun(config(dense), 3 * x)
    assert after.latent_bias is not None
    torch.testing.assert_close(after.scale * 3, before.scale, rtol=0.02, atol=0)
    torch.testing.assert_close(after.pre_bias / after.scale, before.pre_bias / before.scale)
    kept = before.latent_bias if before.tied else torch.zeros(N)
    torch.testing.assert_close(after.latent_bias / after.scale, kept / before.scale)


def test_they_are_a_better_beginning_than_tokens(dense: Path, x: Tensor) -> None:
    asked = config(dense, tokens=8192)
    columns, tokens = (
        evaluate_activations(train(x, each, progress=False).sae, x).fvu.value
        for each in (asked, dataclasses.replace(asked, columns_from=None))
    )
    assert columns < tokens


def test_a_run_that_was_stopped_goes_on_without_them(dense: Path, x: Tensor, tmp_path: Path) -> None:
    whole = train(x, config(dense), progress=False).sae
    asked = config(dense, checkpoint_every=4096)
    out = tmp_path / "run"
    with pytest.raises(RuntimeError):
        train(x, asked, out=out, progress=False, probe=_stop, probe_every=8192)
    resumed = train(x, asked, out=out, resume=True, progress=False).sae
    assert torch.equal(resumed.dictionary.to_dense(), whole.dictionary.to_dense())


def _stop(sae: xs.SparseAutoencoder) -> dict[str, float]:
    raise RuntimeError


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"d": None}, "are learned"),
        ({"construction": "uniform"}, "are learned"),
        ({"atoms": 8}, "are learned"),
    ],
)
def test_what_makes_no_sense_is_refused(dense: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        config(dense, **changes)


def test_other_sizes_are_refused(dense: Path, x: Tensor) -> None:
    with pytest.raises(
        ExpanderError, match="128 columns of width 96, which cannot be those of 64 features of width 96"
    ):
        begun(config(dense, n=64), x)
