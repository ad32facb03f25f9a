"""Training that looks at a share of the features: the same as exact training where that is all, and resumable."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError, SparseAutoencoder, TopK
from expander_sae.distribution import Group
from expander_sae.kernels.groups import group_columns
from expander_sae.training import TensorBatches, TrainConfig, looking, train
from expander_sae.training.learner import Trainee
from expander_sae.training.losses import auxk_loss
from expander_sae.training.start import Sample, new_autoencoder
from tests.training.failing import Failing, fail
from tests.training.planted import M, config, planted, same_tensors

BATCH, N = 256, 1500


def looked(**changes: Any) -> TrainConfig:
    """Twelve steps among features most of which die."""
    settings: dict[str, Any] = {"n": N, "batch": BATCH, "tokens": 12 * BATCH, "dead_after": 3 * BATCH, "look": 0.4}
    return config(**(settings | changes))


@pytest.mark.parametrize(
    "changes", [{}, {"signed": True, "tied": False}, {"construction": "learned"}, {"multi_topk": True}]
)
def test_who_looks_at_everything_learns_what_exact_training_does(changes: dict[str, Any]) -> None:
    _, x = planted(2048)
    exact, everything = (train(x, looked(look=look, **changes), progress=False) for look in (None, 1.0))
    assert everything.metrics[-1]["fvu"] == exact.metrics[-1]["fvu"]
    assert same_tensors(everything.sae, exact.sae)
    assert everything.sae.coder == TopK(3, changes.get("signed", False), 1.0)


def test_who_looks_at_some_learns_nearly_as_much() -> None:
    _, x = planted(2048)
    exact, some = (train(x, looked(look=look, tokens=40 * BATCH), progress=False) for look in (None, 0.4))
    assert not same_tensors(some.sae, exact.sae)
    first, last = some.metrics[0]["fvu"], some.metrics[-1]["fvu"]
    assert last < 0.7 * first
    assert last < 1.1 * exact.metrics[-1]["fvu"]


@pytest.mark.parametrize("at", [4, 9])
@pytest.mark.parametrize("construction", ["uniform", "learned"])
def test_a_resumed_run_looks_in_the_same_groups(
    at: int, construction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "GROUPS_EVERY", 6)
    _, x = planted(2048)
    settings = looked(construction=construction, checkpoint_every=3 * BATCH, move_every=4)
    whole = train(x, settings, progress=False)
    sampled = 16384 // BATCH  # batches that the start reads to get to know the data
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, sampled + at, fail, BATCH), settings, out=tmp_path, progress=False)
    resumed = train(TensorBatches(x, batch=BATCH), settings, out=tmp_path, resume=True, progress=False)
    assert same_tensors(resumed.sae, whole.sae)
    assert SparseAutoencoder.load(tmp_path).coder == TopK(3, look=0.4)
    assert resumed.sae.encoder.grouped is None


def trainee_of(settings: TrainConfig, x: torch.Tensor) -> Trainee:
    sample = Sample(x.mean(dim=0).double(), 1.0, x.std(dim=0), x)
    return Trainee(settings, new_autoencoder(settings, sample, Group()), sample, Group())


def test_dead_features_are_looked_for_in_groups() -> None:
    """The loss of the dead features, and what is learned of it, is the exact one where every group is looked at."""
    _, x = planted(BATCH)
    found = []
    for look in (None, 1.0):
        trainee = trainee_of(looked(look=1.0), x)
        sae, dead = trainee.sae, torch.arange(0, N, 3)
        assert trainee.looking is not None
        with trainee.looking.at(0, x):
            loss = auxk_loss(sae, x - x.mean(dim=0), dead, 2, torch.tensor(1.0), look)
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = sae.dictionary.get_parameter("values").grad
        assert gradient is not None
        assert set(gradient.any(dim=1).nonzero()[:, 0].tolist()) <= set(dead.tolist())
        found.append((loss.detach(), gradient.clone()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_gradients_in_place_are_those_that_autograd_makes() -> None:
    _, x = planted(BATCH)
    trainee = trainee_of(looked(look=1.0), x)
    assert trainee.looking is not None
    gradients = []
    for step in (0, 1):  # the second begins in the memory of the first
        with trainee.looking.at(step, x):
            trainee.sae.residual(x)[1].square().sum().backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad for parameter in trainee.sae.parameters()])
        trainee.sae.pre_bias.grad = None
    trainee.sae.zero_grad()
    trainee.sae.residual(x)[1].square().sum().backward()  # type: ignore[no-untyped-call]
    for parameter, first, second in zip(trainee.sae.parameters(), *gradients, strict=True):
        assert first is not None
        torch.testing.assert_close(parameter.grad, second)
        assert parameter is trainee.sae.pre_bias or first is second


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"coder": "omp"}, "leave look off, or give d and --coder topk without atoms."),
        ({"d": None}, "leave look off, or give d and --coder topk without atoms."),
        ({"construction": "learned", "atoms": 20}, "leave look off, or give d and --coder topk without atoms."),
        ({"batch": 255}, "at least 256, not 255; give a larger batch, or leave look off."),
        ({"k": 257}, "which k cannot exceed with look, so not be 257; give less, or leave look off."),
        ({"k": 65, "multi_topk": True}, "which 4 k of multi_topk cannot exceed with look, so not be 260; give less"),
        ({"auxk_k": 300}, "Of 1500 features every token looks at 256, which auxk_k cannot exceed"),
        ({"n": 64 * 300, "k": 301}, "Of 19200 features every token looks at 300, which k cannot exceed"),
        ({"look": 0.0}, "look must be above 0 and at most 1"),
    ],
)
def test_where_it_cannot_be_had_a_sentence_says_so(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError) as refusal:
        looked(**changes)
    assert sentence in str(refusal.value)


def test_it_is_for_one_process_that_holds_all_features() -> None:
    _, x = planted(BATCH)
    sample = Sample(x.mean(dim=0).double(), 1.0, x.std(dim=0), x)
    with pytest.raises(ExpanderError, match="train in one process with --device cpu, or leave look off"):
        Trainee(looked(), new_autoencoder(looked(), sample, Group()), sample, Group(world=2))
    with pytest.raises(ExpanderError, match="leave atoms, start, columns_from and look off"):
        train(x, looked(), feature_shards=2, progress=False)


@given(n=st.integers(1, 40_000), k=st.integers(1, 700))
@settings(max_examples=15, deadline=None)
def test_a_config_may_ask_for_what_groups_can_give(n: int, k: int) -> None:
    values, rows = torch.randn(n, 1), torch.randint(M, (n, 1), dtype=torch.int32)
    everyones = group_columns(values, rows, None, torch.ones(M)).everyones
    with nullcontext() if k <= everyones else pytest.raises(ExpanderError):
        config(n=n, k=k, d=1, batch=BATCH, look=0.4)
