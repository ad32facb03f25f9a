"""A probe's numbers join the metrics where they are due, and change nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import expander_sae as xs
from expander_sae.errors import ExpanderError
from expander_sae.training import TensorBatches, read_metrics, train
from tests.training.planted import config, planted, same_tensors

X = planted(4096)[1]


class Counting:
    """Gives the number of its call and a number that tells which weights it saw."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, sae: xs.SparseAutoencoder) -> Mapping[str, float]:
        self.calls += 1
        assert not torch.is_grad_enabled()
        return {"call": self.calls, "seen": float(sae.dictionary.get_parameter("values").double().square().sum())}


def test_the_numbers_are_in_the_rows_where_they_are_due(tmp_path: Path) -> None:
    settings = config(tokens=64 * 20, log_every=7)
    run = train(X, settings, out=tmp_path, progress=False, probe=Counting(), probe_every=64 * 4 + 1)
    # Multiples of 257 are first reached or passed by these steps; the last one is the end.
    assert [row["step"] for row in run.metrics if "call" in row] == [5, 9, 13, 17, 20]
    assert [row["step"] for row in run.metrics] == [5, 7, 9, 13, 14, 17, 20]
    assert read_metrics(tmp_path / "metrics.jsonl") == run.metrics
    final = float(run.sae.dictionary.get_parameter("values").detach().double().square().sum())
    assert run.metrics[-1]["seen"] == final
    assert run.sae.provenance["metrics"]["seen"] == final


@pytest.mark.parametrize("changes", [{}, {"average": 0.9}, {"coder": "batch_topk"}, {"unit_norm": True}], ids=str)
def test_a_probe_sees_what_would_be_kept_and_disturbs_nothing(changes: dict[str, object]) -> None:
    def meddling(sae: xs.SparseAutoencoder) -> Mapping[str, float]:
        seen.append(copy.deepcopy(sae))
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.zero_()
        torch.rand(3)
        return {}

    seen: list[xs.SparseAutoencoder] = []
    alone = train(X, config(**changes), progress=False)
    probed = train(X, config(**changes), progress=False, probe=meddling, probe_every=200)
    assert same_tensors(alone.sae, probed.sae)
    assert same_tensors(alone.sae, seen[-1])
    assert alone.sae.coder == seen[-1].coder


def test_several_dictionaries_have_their_own_numbers() -> None:
    runs = train(X, [config(), config(seed=1)], progress=False, probe=Counting(), probe_every=64 * 10)
    calls = [[row["call"] for row in run.metrics if "call" in row] for run in runs]
    assert calls == [[1, 3], [2, 4]]


def test_a_resumed_run_probes_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    settings = config(tokens=64 * 20, checkpoint_every=64 * 6)

    def dying(sae: xs.SparseAutoencoder) -> Mapping[str, float]:
        if probe.calls == 2:
            raise RuntimeError("the power went out")
        return probe(sae)

    whole = train(X, settings, progress=False, probe=Counting(), probe_every=64 * 5)
    probe = Counting()
    with pytest.raises(RuntimeError, match="power"):
        train(X, settings, out=tmp_path, progress=False, probe=dying, probe_every=64 * 5)
    resumed = train(X, settings, out=tmp_path, resume=True, progress=False, probe=Counting(), probe_every=64 * 5)
    assert same_tensors(resumed.sae, whole.sae)
    for ours, theirs in zip(resumed.metrics, whole.metrics, strict=True):
        assert ours.keys() == theirs.keys()
        assert {name: ours[name] for name in ours if name not in ("call", "tokens_per_second")} == {
            name: theirs[name] for name in theirs if name not in ("call", "tokens_per_second")
        }


def test_time_in_a_probe_is_not_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slow(sae: xs.SparseAutoencoder) -> Mapping[str, float]:
        now[0] += 1000
        return {}

    class Batches(TensorBatches):
        """Every batch takes a second."""

        def __next__(self) -> torch.Tensor:
            now[0] += 1
            return super().__next__()

    settings = config(tokens=64 * 20, log_every=5)
    run = train(Batches(X, batch=64), settings, progress=False, probe=slow, probe_every=64 * 8)
    assert [row["tokens_per_second"] for row in run.metrics] == pytest.approx([64] * len(run.metrics))


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    train(X, config(), out=tmp_path, progress=False, probe=lambda sae: {"ce": 3, "bad": float("nan")})
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["ce"] == 3
    assert "bad" not in last


def test_refusals() -> None:
    with pytest.raises(ExpanderError, match="The probe gives 'fvu', which training itself measures; use another name"):
        train(X, config(), progress=False, probe=lambda sae: {"fvu": 0.0})
    with pytest.raises(ExpanderError, match="probe_every must be at least 1, not 0"):
        train(X, config(), progress=False, probe=lambda sae: {}, probe_every=0)
