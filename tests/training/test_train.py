"""What training promises: it learns, it measures honestly, and dictionaries in one pass do not disturb each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import expander_sae as xs
from expander_sae.distribution import Group
from expander_sae.training import TensorBatches, read_metrics, train
from expander_sae.training.losses import batch_statistics, fvu
from tests.training.planted import K, M, N, config, planted, same_tensors


def agreement(sae: xs.SparseAutoencoder, true: xs.Dictionary) -> float:
    """Mean size of the cosine between columns of the same support."""
    learned, values = sae.dictionary.get_parameter("values"), true.get_parameter("values")
    return torch.nn.functional.cosine_similarity(learned, values).abs().mean().item()


@pytest.mark.parametrize("settings", [{"coder": "topk"}, {"coder": "topk", "signed": True}, {"coder": "omp"}])
def test_planted_columns_are_found(settings: dict[str, Any]) -> None:
    true, x = planted(8192)
    untrained = train(x, config(tokens=64, learning_rate=1e-9, **settings), progress=False)
    run = train(x, config(tokens=64 * 500, **settings), progress=False)
    assert agreement(run.sae, true) > agreement(untrained.sae, true) + 0.1
    assert run.metrics[-1]["fvu"] < 0.5 * run.metrics[0]["fvu"]


@pytest.mark.parametrize(
    "settings",
    [
        {"d": None},
        {"coder": "mp"},
        {"coder": "batch_topk"},
        {"coder": "batch_topk", "construction": "learned"},
        {"tied": False},
        {"multi_topk": True},
        {"unit_norm": True},
        {"average": 0.9},
        {"latent_bias": False},
        {"d": None, "precision": "bfloat16"},
        {"precision": "float64"},
        {"construction": "balanced"},
    ],
    ids=str,
)
def test_every_option_learns(settings: dict[str, Any]) -> None:
    _, x = planted(2048)
    run = train(x, config(tokens=64 * 100, learning_rate=1e-2, **settings), progress=False)
    assert run.metrics[-1]["fvu"] < 0.95 * run.metrics[0]["fvu"]
    with torch.no_grad():
        kept = fvu(run.sae.residual(x.to(run.sae.dictionary.dtype))[1], _variation(run.sae, x))
    assert kept < 1
    assert run.sae.dictionary.dtype == (torch.float64 if settings.get("precision") == "float64" else torch.float32)
    if settings.get("unit_norm"):
        torch.testing.assert_close(run.sae.dictionary.norms(), torch.ones(N), rtol=1e-5, atol=1e-5)


def _variation(sae: xs.SparseAutoencoder, x: torch.Tensor) -> torch.Tensor:
    return batch_statistics(x, Group()).variation * sae.scale**2


def test_predicting_the_mean_has_fvu_one() -> None:
    _, x = planted(256)
    statistics = batch_statistics(x, Group())
    assert fvu(x - x.mean(dim=0), statistics.variation).item() == pytest.approx(1.0, abs=1e-6)
    assert fvu(torch.zeros_like(x), statistics.variation).item() == 0.0


def test_fvu_has_no_scale() -> None:
    _, x = planted(2048)
    settings = config(tokens=64 * 20)
    small, large = (train(factor * x, settings, progress=False) for factor in (1.0, 1024.0))
    for ours, theirs in zip(small.metrics, large.metrics, strict=True):
        assert ours["fvu"] == pytest.approx(theirs["fvu"], rel=1e-5)


def test_training_starts_from_the_data() -> None:
    _, x = planted(4096)
    run = train(x, config(tokens=64, learning_rate=1e-9), progress=False)
    assert float(run.sae.scale) * float(torch.linalg.vector_norm(x, dim=1).mean()) == pytest.approx(M**0.5, rel=1e-2)
    torch.testing.assert_close(run.sae.pre_bias.detach(), x.mean(dim=0) * run.sae.scale, rtol=0, atol=0.05)


def test_dictionaries_in_one_pass_are_those_of_single_runs() -> None:
    _, x = planted(2048)
    settings = [config(), config(d=None), config(seed=1), config(coder="omp", construction="balanced")]
    together = train(x, settings, progress=False)
    for alone, run in zip(settings, together, strict=True):
        assert run.config is alone
        assert same_tensors(train(x, alone, progress=False).sae, run.sae)


def test_what_is_written_is_what_came_back(tmp_path: Path) -> None:
    _, x = planted(2048)
    runs = train(x, [config(), config(d=None)], out=tmp_path, progress=False)
    for run in runs:
        assert run.path is not None
        assert run.path.parent == tmp_path
        loaded = xs.SparseAutoencoder.load(run.path)
        assert same_tensors(loaded, run.sae)
        assert loaded.provenance["training"] == run.config.to_json()
        assert loaded.provenance["tokens"] == 20 * 64
        assert read_metrics(run.path / "metrics.jsonl") == run.metrics
        assert loaded.provenance["metrics"].keys() == run.metrics[-1].keys() - {"tokens_per_second"}
        assert loaded.provenance["metrics"].items() <= run.metrics[-1].items()


def test_metrics_say_what_happened(tmp_path: Path) -> None:
    _, x = planted(2048)
    run = train(x, config(), out=tmp_path, progress=False)
    assert run.path == tmp_path
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert [row["tokens"] for row in rows] == [5 * 64, 10 * 64, 15 * 64, 20 * 64]
    for row in rows:
        assert 0 < row["l0"] <= K
        assert 0 <= row["dead"] <= 1
        assert row["tokens_per_second"] > 0
        assert row["grad_norm"] > 0
    assert rows[-1]["learning_rate"] < rows[1]["learning_rate"]


def test_batch_topk_keeps_the_threshold_it_learned() -> None:
    _, x = planted(2048)
    run = train(x, config(coder="batch_topk", tokens=64 * 200), progress=False)
    assert isinstance(run.sae.coder, xs.BatchTopK)
    assert run.sae.coder.threshold is not None
    with torch.no_grad():
        l0 = run.sae.encode(x).l0.double().mean().item()
    assert l0 == pytest.approx(K, rel=0.3)


def test_a_store_is_a_source(tmp_path: Path) -> None:
    from expander_sae.activations.store import Store, StoreWriter

    _, x = planted(2048)
    numbers = torch.arange(len(x), dtype=torch.int32)
    with StoreWriter(
        tmp_path / "acts", width=M, dtype=torch.float16, tokens_per_shard=512, origin={"model": "x"}
    ) as to:
        to.append(x, numbers, torch.zeros_like(numbers), numbers)
        to.finish()
    store = Store.open(tmp_path / "acts")
    run = train(store, config(), out=tmp_path / "run", progress=False)
    assert run.sae.provenance["activations"]["model"] == "x"
    assert run.sae.provenance["activations"]["fingerprint"] == store.fingerprint


def test_a_source_of_ones_own() -> None:
    _, x = planted(2048)
    ours = train(TensorBatches(x, batch=64, seed=0), config(), progress=False)
    assert same_tensors(ours.sae, train(x, config(), progress=False).sae)
