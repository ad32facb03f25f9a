"""Training that looks at a share of the features: the same as exact training where that is all, and resumable."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae import ExpanderError, SparseAutoencoder, TopK
from expander_sae.distribution import Group
from expander_sae.training import TensorBatches, TrainConfig, looking, train
from expander_sae.training.learner import Trainee
from expander_sae.training.losses import auxk_loss
from expander_sae.training.start import Sample, new_autoencoder
from tests.training.failing import Failing, fail
from tests.training.planted import config, planted, same_tensors

BATCH, N = 256, 1500


def looked(**changes: Any) -> TrainConfig:
    """Twelve steps among features most of which die."""
    settings: dict[str, Any] = {"n": N, "batch": BATCH, "tokens": 12 * BATCH, "dead_after": 3 * BATCH, "look": 0.4}
    return config(**(settings | changes))


@pytest.mark.parametrize("changes", [{}, {"signed": True, "tied": False}, {"construction": "learned"}, {"multi_topk": True}])
def test_who_looks_at_everything_learns_what_exact_training_does(changes: dict[str, Any]) -> None:
    _, x = planted(2048)
    exact, everything = (train(x, looked(look=look, **changes), progress=False) for look in (None, 1.0))
    assert everything.metrics[-1]["fvu"] == exact.metrics[-1]["fvu"]
    assert same_tensors(everything.sae, exact.sae)
    assert everything.sae.coder == TopK(3, changes.get("signed", False), 1.0)
