"""Runs whose features lie in shards, small enough for four processes in a test."""

from __future__ import annotations

from expander_sae.training import TrainConfig
from tests.training.planted import N, config

STEPS, SAVED, FAILS = 20, 10, 14
"""Steps of a run, after how many it is saved, and in which it fails if it is to."""
SAMPLED = 256
"""Batches that the start reads."""
RUNS = (("uniform", 2), ("uniform", 4), ("untied", 2), ("learned", 4), ("crowded", 2), ("crowded", 4))
"""What is trained, and in how many shards; with two, two processes share every batch."""


def sharded(name: str) -> TrainConfig:
    """A run with dead features and all that revives them."""
    changes = {
        "uniform": {"average": 0.9, "multi_topk": True},
        "untied": {"tied": False, "signed": True, "unit_norm": True, "latent_bias": False},
        "learned": {"construction": "learned", "move_every": 5},
        "crowded": {"construction": "learned", "move_every": 2, "n": 8 * N},  # more are dead than a move sees tokens
    }
    common = {"tokens": 64 * STEPS, "precision": "float64", "dead_after": 128, "checkpoint_every": 64 * SAVED}
    return config(**common, **changes[name])
