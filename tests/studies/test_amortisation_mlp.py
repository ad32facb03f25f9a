"""MLP encoders for dictionaries that stay as they are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import TopK
from expander_sae.errors import ExpanderError
from expander_sae.studies import amortisation
from expander_sae.studies.amortisation import NETWORKS, compared
from expander_sae.studies.amortisation.config import MLP, AmortisationConfig
from expander_sae.studies.data import planted_activations
from expander_sae.studies.encoders import (
    MLPCodes,
    MLPEncoder,
    new_encoder,
    read_encoder,
    train_encoder,
    write_encoder,
)
from expander_sae.training import TrainConfig, train
from tests.studies.notebook import Notebook

HIDDEN = 24


@pytest.fixture(scope="module")
def x() -> Float[Tensor, "tokens m"]:
    return planted_activations(2048)


@pytest.fixture(scope="module")
def settings() -> dict[str, TrainConfig]:
    base = TrainConfig(n=96, d=6, k=3, batch=128, tokens=2048)
    return {coder: dataclasses.replace(base, coder=coder) for coder in ("topk", "omp")}


@pytest.fixture(scope="module", params=["topk", "omp"])
def trained(
    request: pytest.FixtureRequest, x: Tensor, settings: dict[str, TrainConfig]
) -> tuple[SparseAutoencoder, TrainConfig]:
    config = settings[request.param]
    return train(x, config, progress=False).sae, config


def left(sae: SparseAutoencoder, encoder: MLPEncoder, k: int, x: Tensor) -> float:
    with torch.no_grad():
        return float(sae.with_coder(MLPCodes(encoder, k)).residual(x)[1].square().sum())


def test_training_makes_the_error_smaller_and_leaves_the_dictionary_alone(
    trained: tuple[SparseAutoencoder, TrainConfig], x: Tensor
) -> None:
    sae, config = trained
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    encoder = train_encoder(sae, x, dataclasses.replace(config, tokens=8192), HIDDEN)
    assert left(sae, encoder, config.k, x) < left(sae, new_encoder(sae, HIDDEN, 0), config.k, x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in sae.state_dict().items())
    assert bool(encoder.out.weight.any())


def test_an_untrained_encoder_gives_the_codes_of_topk(
    trained: tuple[SparseAutoencoder, TrainConfig], x: Tensor
) -> None:
    sae, config = trained
    same = sae.with_coder(TopK(config.k)).encode(x).to_dense()
    found = sae.with_coder(MLPCodes(new_encoder(sae, HIDDEN, 0), config.k)).encode(x).to_dense()
    torch.testing.assert_close(found, same, atol=1e-4, rtol=1e-4)


def test_the_learned_values_of_its_own_are_those_that_it_has(trained: tuple[SparseAutoencoder, TrainConfig]) -> None:
    sae, _ = trained
    layers = 96 * HIDDEN + HIDDEN + HIDDEN * 96  # m = n = 96
    assert new_encoder(sae, HIDDEN, 0).learned_values == sae.dictionary.learned_values + 96 + layers


def test_an_encoder_comes_back_from_its_file(
    trained: tuple[SparseAutoencoder, TrainConfig], x: Tensor, tmp_path: Path
) -> None:
    sae, config = trained
    encoder, path = train_encoder(sae, x, dataclasses.replace(config, tokens=512), HIDDEN), tmp_path / "one.safetensors"
    write_encoder(path, encoder)
    assert torch.equal(read_encoder(path, sae, HIDDEN)(x), encoder(x))
    with pytest.raises(ExpanderError, match="was edited or damaged; delete it to have it made again"):
        read_encoder(path, sae, HIDDEN + 1)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ExpanderError, match="was edited or damaged"):
        read_encoder(path, sae, HIDDEN)


def test_a_deleted_network_alone_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AmortisationConfig(
        synthetic=True, n=96, k=3, degrees=(3,), seeds=(0,), tokens=256, hidden=8, mlp_tokens=512,
        evaluation_tokens=64, out=tmp_path / "out",
    )  # fmt: skip
    result = compared(config, Notebook())
    assert {each.counts["network_values"] > 0 for each in result.records if each.labels["coder"] == MLP} == {True}
    assert {each.counts["network_values"] for each in result.records if each.labels["coder"] != MLP} == {0}
    counted = []

    def counting(*arguments: object) -> MLPEncoder:
        counted.append(arguments)
        return train_encoder(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(amortisation, "train_encoder", counting)
    shutil.copytree(config.out, tmp_path / "copy")
    here = dataclasses.replace(config, out=tmp_path / "copy")
    path = here.out / NETWORKS / "learned-d3-n96-omp3.safetensors"
    before = path.read_bytes()
    path.unlink()
    again = compared(here, Notebook())
    assert len(counted) == 1
    assert path.read_bytes() == before
    assert repr(again.records) == repr(result.records)
