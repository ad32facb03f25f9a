"""What cannot be trained is refused in one sentence that says what can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae.errors import ExpanderError
from expander_sae.training import TensorBatches, TrainConfig, train, width_matched
from tests.training.planted import M, N, config, planted


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"k": N + 1}, "k must be between 1 and the number of features, 96, not 97."),
        ({"k": 0}, "k must be at least 1"),
        ({"n": 0}, "n must be at least 1"),
        ({"d": 0}, "d must be at least 1"),
        ({"construction": "spiral"}, "construction must be one of learned, uniform, "),
        ({"coder": "magic"}, "coder must be one of topk, batch_topk, mp, omp, not 'magic'."),
        ({"coder": "omp", "tied": False}, "omp works on the dictionary alone"),
        ({"coder": "mp", "latent_bias": True}, "mp works on the dictionary alone"),
        ({"coder": "mp", "multi_topk": True}, "with mp leave it off"),
        ({"k": 30, "multi_topk": True}, "4 k = 120 features per token, but there are 96"),
        ({"precision": "float8"}, "precision must be float32, float64 or bfloat16"),
        ({"precision": "bfloat16"}, "for dense dictionaries"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"warm_up": 0.6, "decay": 0.6}, "add up to at most 1"),
        ({"betas": (0.9, 1.0)}, "betas must be from 0 to below 1"),
        ({"average": 1.0}, "average must be from 0 to below 1"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"auxk": -1.0}, "auxk must be at least 0"),
        ({"dead_after": 0}, "dead_after must be at least 1"),
        ({"auxk_k": 0}, "auxk_k must be at least 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_configs(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError) as refusal:
        config(**settings)
    assert sentence in str(refusal.value)
    assert str(refusal.value).endswith(".")


def refused(source: Any, settings: Any, **options: Any) -> str:
    with pytest.raises(ExpanderError) as refusal:
        train(source, settings, progress=False, **options)
    return str(refusal.value)


def test_bad_requests(tmp_path: Path) -> None:
    _, x = planted(512)
    assert refused(x, config(d=M + 1)) == f"d must be between 1 and the width of the activations, {M}, not {M + 1}."
    assert "of at least one batch of 64 rows, not [20, 64]" in refused(x[:20], config())
    assert "not list" in refused([1.0], config())
    assert refused(x, config(), resume=True) == "Resuming and logging need a folder; give out."
    assert "holds no checkpoint to resume from" in refused(x, config(), out=tmp_path, resume=True)
    assert "at least one TrainConfig" in refused(x, [])
    assert "batch cannot be [32, 64]" in refused(x, [config(), config(d=None, batch=32)])
    assert "would both be called" in refused(x, [config(), config(learning_rate=0.1)])
    assert "all zero" in refused(torch.zeros(512, M), config())
    assert "not finite" in refused(torch.full((512, M), torch.nan), config())
    assert "tensorboard or wandb" in refused(x, config(), out=tmp_path, also_log=["smoke signals"])


def test_a_batch_of_another_size_is_refused() -> None:
    _, x = planted(512)
    assert refused(TensorBatches(x, batch=32), config()) == "The source gives 32 tokens a batch, the config says 64."


def test_activations_that_are_not_finite_are_refused() -> None:
    _, x = planted(40_000)
    x[-1000:, 3] = torch.nan
    assert "not finite" in refused(x, config(tokens=64 * 600))


def test_a_loss_that_explodes_is_refused() -> None:
    _, x = planted(4096)
    assert "finite" in refused(x, config(learning_rate=1e30, d=None, tokens=64 * 100))


def test_missing_tensorboard_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    _, x = planted(512)
    sentence = refused(x, config(), out=tmp_path, also_log=["tensorboard"])
    assert sentence == "Metrics for TensorBoard need it: pip install 'expander-sae[tensorboard]'."


def test_the_width_matched_dictionary_holds_as_many_values() -> None:
    matched = width_matched(TrainConfig(n=4608, d=7, k=16), 576)
    assert (matched.n, matched.d) == (56, None)
    with pytest.raises(ExpanderError):
        width_matched(matched, 576)


@pytest.mark.parametrize(
    ("change", "idle"),
    [
        ({}, []),
        ({"d": None, "coder": "topk", "construction": "uniform"}, ["construction"]),
        ({"coder": "topk", "construction": "learned", "stretch": 2, "move_until": 0.5}, ["stretch", "move_until"]),
        ({"coder": "omp", "construction": "learned", "stretch": 2, "move_until": 0.5, "lift": 1.0}, ["lift"]),
        ({"coder": "omp", "refit_share": 0.1, "candidates": 9}, ["candidates", "refit_share"]),
        ({"coder": "topk", "auxk": 0.0, "auxk_k": 3, "atoms_alone": 0.1}, ["atoms_alone", "auxk_k"]),
    ],
)
def test_what_changes_nothing_is_known(change, idle):
    assert config(**change).idle == idle
