"""Any combination of options either trains or is refused in one sentence: none fails on the way."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, assume, given, settings
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


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(chosen=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in OPTIONS.items()}))
def test_a_combination_trains_or_is_refused(chosen: dict[str, Any]) -> None:
    options = {name: value for name, value in chosen.items() if value is not DEFAULT}
    try:
        config = TrainConfig(n=64, k=4, batch=64, tokens=64 * 24, move_every=4, log_every=8, **options)
    except ExpanderError as error:
        assert str(error).endswith(".")
        assume(False)
    _, x = planted(1024)
    try:
        run = train(x, config, progress=False)
    except ExpanderError as error:  # what only the data or the machine can tell
        assert str(error).endswith(".")
        return
    assert all(row["fvu"] == row["fvu"] and row["fvu"] < 1e4 for row in run.metrics)
    with torch.no_grad():
        codes, left = run.sae.residual(x.to(run.sae.dictionary.dtype))
    assert bool(torch.isfinite(codes.values).all() and torch.isfinite(left).all())
