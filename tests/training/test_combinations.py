"""Any combination of options either trains or is refused when it is made: none fails on the way."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError, TrainConfig
from expander_sae.training import train
from tests.training.planted import planted

DEFAULT = object()
"""Leaves an option out."""
OPTIONS: dict[str, list[Any]] = {
    "d": [3, 3, 3, None],
    "construction": [DEFAULT, "uniform", "balanced"],
    "coder": [DEFAULT, "topk", "batch_topk", "mp", "omp"],
    "objective": [DEFAULT, DEFAULT, "readable", "fidelity"],
    "atoms": [DEFAULT, DEFAULT, 8],
    "tied": [True, True, False],
    "signed": [False, False, True],
    "latent_bias": [DEFAULT, True, False],
    "unit_norm": [DEFAULT, True, False],
    "multi_topk": [False, False, True],
    "stretch": [DEFAULT, 1, 2],
    "look": [DEFAULT, DEFAULT, DEFAULT, 0.5],
    "average": [0.0, 0.9],
    "auxk": [DEFAULT, 0.0, 0.1],
    "lift": [DEFAULT, 0.5],
    "refit_share": [DEFAULT, 0.0, 1.0],
    "candidates": [DEFAULT, DEFAULT, 6],
    "dead_after": [DEFAULT, 128],
    "precision": ["float32", "float32", "float64", "bfloat16"],
}


SIZES: dict[str, Any] = {"n": 64, "k": 4, "batch": 256, "tokens": 256 * 12, "move_every": 4, "log_every": 4}


def config_of(options: dict[str, Any]) -> TrainConfig | None:
    """The configuration with these options, if they go together."""
    try:
        return TrainConfig(**SIZES, **{name: value for name, value in options.items() if value is not DEFAULT})
    except ExpanderError:
        return None


CONFIGS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in OPTIONS.items()}).map(config_of)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(config=CONFIGS.filter(lambda config: config is not None))
def test_a_combination_that_is_not_refused_trains(config: TrainConfig) -> None:
    _, x = planted(1024)
    run = train(x, config, progress=False)
    assert all(math.isfinite(row["fvu"]) for row in run.metrics)
    with torch.no_grad():
        codes, left, _ = run.sae.residual(x.to(run.sae.dictionary.dtype))
    assert bool(torch.isfinite(codes.values).all() and torch.isfinite(left).all())
