"""Whole steps of the trainer: revival, statistics, clipping and all, for dictionaries side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch

from expander_sae.benchmarking.cases import Sizes
from expander_sae.benchmarking.results import Result
from expander_sae.benchmarking.timing import interleaved
from expander_sae.training import Sample, TensorBatches, TrainConfig, Trainee, new_autoencoder

SIZES = Sizes(m=576, n=4608, d=7, k=16, tokens=1024)
"""Of the residual stream of a 135M model, with eight features for each coordinate."""


def trainer_steps(repeats: int) -> list[Result]:
    """A step with one-shot codes, and one with pursuit on learned rows, against a step of a dense TopK dictionary."""
    steps = {
        "one-shot": _step(TrainConfig(n=SIZES.n, d=SIZES.d, k=SIZES.k, coder="topk", construction="uniform")),
        "pursuit": _step(TrainConfig(n=SIZES.n, d=SIZES.d, k=SIZES.k)),
        "dense": _step(TrainConfig(n=SIZES.n, k=SIZES.k)),
    }
    times = interleaved(steps, repeats)
    against = "the same of a dense dictionary"
    return [
        Result(f"step of the trainer, TopK, {SIZES}", against, times["one-shot"], times["dense"], "s", ">= 15x",
               times["dense"] >= 15 * times["one-shot"]),
        Result(f"step of the trainer, OMP and learned rows, {SIZES}", f"{against}, TopK", times["pursuit"],
               times["dense"], "s", ">= 1x", times["dense"] >= times["pursuit"]),
    ]  # fmt: skip


def _step(config: TrainConfig) -> Callable[[], object]:
    """One step on the same tokens, of a run that has just begun."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SIZES.tokens, SIZES.m, generator=generator) * torch.rand(SIZES.m, generator=generator)
    sample = Sample.of(TensorBatches(x, batch=config.batch), config.batch)
    trainee = Trainee(config, new_autoencoder(config, sample), sample)
    return lambda: trainee.step(x)
