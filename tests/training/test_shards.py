"""Four processes that share the features are one: the same codes, the same training up to rounding, any checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import expander_sae as xs
from expander_sae.errors import ExpanderError
from expander_sae.training import Run, TensorBatches, read_metrics, train
from tests.processes import torchrun
from tests.training.failing import Failing, fail
from tests.training.planted import config, planted
from tests.training.sharded import FAILS, RUNS, SAMPLED, sharded


@pytest.fixture(scope="module")
def alone() -> dict[str, Run]:
    """What one process trains."""
    _, x = planted(2048)
    return {name: train(x, sharded(name), progress=False) for name, _ in RUNS}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What four processes left; they also check the codes of shards."""
    folder = tmp_path_factory.mktemp("shards")
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(planted(2048)[1], SAMPLED + FAILS, fail), sharded("learned"), out=folder / "one", progress=False)
    done = torchrun("tests.training.child_shards", str(folder), processes=4)
    assert done.returncode == 0, done.stderr
    return folder


def same(ours: xs.SparseAutoencoder, theirs: xs.SparseAutoencoder) -> None:
    assert isinstance(ours.dictionary, xs.ExpanderDictionary)
    assert isinstance(theirs.dictionary, xs.ExpanderDictionary)
    assert ours.dictionary.support == theirs.dictionary.support
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shards"), RUNS)
def test_four_processes_train_what_one_would(name: str, shards: int, four: Path, alone: dict[str, Run]) -> None:
    folder = four / f"{name}{shards}"
    sae = xs.SparseAutoencoder.load(folder)
    same(sae, alone[name].sae)
    assert sae.provenance["processes"] == 4
    assert sae.provenance["feature_shards"] == shards
    for ours, theirs in zip(read_metrics(folder / "metrics.jsonl"), alone[name].metrics, strict=True):
        for number in ("tokens", "fvu", "auxk", "dead", "l0", "grad_norm"):
            assert ours[number] == pytest.approx(theirs[number], rel=1e-5), number
    assert max(row["dead"] for row in alone[name].metrics) > 0, "there was something to revive"


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_shards(four: Path, alone: dict[str, Run]) -> None:
    same(xs.SparseAutoencoder.load(four / "one"), alone["learned"].sae)
    saved = json.loads((four / "four" / "checkpoint" / "checkpoint.json").read_text())
    assert saved["step"] == 10
    assert [len(shards) for shards in saved["tensors"]] == [4]
    run = train(TensorBatches(planted(2048)[1], batch=64), sharded("learned"), out=four / "four", resume=True,
                progress=False)  # fmt: skip
    same(run.sae, alone["learned"].sae)


@pytest.mark.parametrize(
    ("changes", "shards", "sentence"),
    [
        ({}, 5, "96 features cannot lie in 5 shards of one size"),
        ({"coder": "omp"}, 2, "Feature shards are for an expander dictionary of coordinates under coder topk"),
        ({"d": None}, 2, "Feature shards are for"),
        ({"construction": "learned", "coder": None}, 2, "Feature shards are for"),
        ({}, 2, "1 processes cannot hold 2 shards"),
        ({}, 0, "feature_shards must be at least 1"),
    ],
)
def test_what_cannot_lie_in_shards_is_refused(changes: dict[str, object], shards: int, sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        train(planted(128)[1], config(**changes), feature_shards=shards, progress=False)
