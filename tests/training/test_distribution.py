"""Two processes are one: the same dictionary up to rounding, and a checkpoint that outlives either of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import expander_sae as xs
from expander_sae.activations.store import Store, StoreWriter
from expander_sae.distribution import Group
from expander_sae.errors import ExpanderError
from expander_sae.training import Sample, Trainee, new_autoencoder, train
from tests.processes import torchrun
from tests.training.planted import M, N, config, planted


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        {"construction": "uniform", "coder": "topk"},
        {"construction": "learned", "coder": "omp", "move_every": 5},
        {"construction": "learned", "coder": None, "atoms": 24, "move_every": 4, "dead_after": 128},
    ],
    ids=["uniform", "moving", "atoms"],
)
def test_two_processes_train_what_one_would(kind: dict[str, Any], tmp_path: Path) -> None:
    _, x = planted(2048)
    numbers = torch.arange(len(x), dtype=torch.int32)
    with StoreWriter(tmp_path / "acts", width=M, dtype=torch.float16, tokens_per_shard=512, origin={}) as writer:
        writer.append(x, numbers, torch.zeros_like(numbers), numbers)
        writer.finish()
    settings = config(**{"tokens": 64 * 20, "precision": "float64", "dead_after": 64, "log_every": 5} | kind)
    single = train(Store.open(tmp_path / "acts"), settings, progress=False)
    if settings.composed:
        assert single.sae.dictionary.norms().count_nonzero() == N, "mixtures were made of the atoms"
    options = "--n 96 --d 4 --k 3 --tokens 1280 --batch 64 --precision float64 --log-every 5"
    given = {"dead_after": 64} | kind
    options += "".join(f" --{name.replace('_', '-')} {value}" for name, value in given.items() if value is not None)
    done = torchrun("expander_sae", "train", str(tmp_path / "acts"), "--out", str(tmp_path / "run"), *options.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(settings.name) == 1, "only the first process prints"
    double = xs.SparseAutoencoder.load(tmp_path / "run")
    assert double.provenance["processes"] == 2
    for name, tensor in single.sae.state_dict().items():
        torch.testing.assert_close(double.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for ours, theirs in zip(rows, single.metrics, strict=True):
        for name in ("tokens", "fvu", "auxk", "dead", "l0", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_a_dead_process_ends_the_run_with_a_usable_checkpoint(dying: int, tmp_path: Path) -> None:
    done = torchrun("tests.training.child_rank", str(tmp_path), str(dying))
    assert done.returncode != 0
    assert f"rank {1 - dying}: Another process of this run died" in done.stderr
    saved = json.loads((tmp_path / "checkpoint" / "checkpoint.json").read_text())
    assert saved["tokens"] == 20 * 64
    settings = config(tokens=64 * 40, checkpoint_every=64 * 10)
    run = train(planted(4096)[1], settings, out=tmp_path, resume=True, progress=False)
    assert run.metrics[-1]["tokens"] == 40 * 64


def test_batch_topk_needs_one_process() -> None:
    settings = config(coder="batch_topk")
    sample = Sample.unknown(M, torch.device("cpu"))
    sae = new_autoencoder(settings, sample)
    assert sae.n == N
    with pytest.raises(ExpanderError, match="trains in one process"):
        Trainee(settings, sae, sample, Group(rank=0, world=2))
