"""A training step of ours against one of the libraries a user could pick instead, with their own models and losses."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import torch
from torch import Tensor

from expander_sae.benchmarking.cases import Sizes, expander_step
from expander_sae.benchmarking.measure import interleaved
from expander_sae.benchmarking.results import Goal, Result


def sparsify_step(sizes: Sizes) -> Callable[[Tensor], object]:
    """One step of eai-sparsify's TopK coder as its trainer does it: unit norms, FVU loss, projected gradient, Adam."""
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1" if not torch.cuda.is_available() else "0")
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(sizes.m, SparseCoderConfig(num_latents=sizes.n, k=sizes.k))
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-4, fused=True)

    def step(x: Tensor) -> object:
        coder.set_decoder_norm_to_unit_norm()
        optimizer.zero_grad()
        loss = coder(x).fvu
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        return loss.detach()

    return step


def sae_lens_step(sizes: Sizes) -> Callable[[Tensor], object]:
    """One step of SAELens's TopK training SAE: its forward pass and loss, Adam."""
    logging.getLogger("sae_lens").setLevel(logging.ERROR)
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    config = TopKTrainingSAEConfig(d_in=sizes.m, d_sae=sizes.n, k=sizes.k, device="cpu", dtype="float32")
    model = TopKTrainingSAE(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    alive = torch.zeros(sizes.n, dtype=torch.bool)

    def step(x: Tensor) -> object:
        optimizer.zero_grad()
        record = TrainStepInput(
            sae_in=x, coefficients={}, dead_neuron_mask=alive, n_training_steps=0, is_logging_step=False
        )
        loss = model.training_forward_pass(record).loss
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def against_peers(sizes: Sizes, repeats: int) -> list[Result]:
    """Training steps side by side on the same batch."""
    x = torch.randn(sizes.tokens, sizes.m)
    ours, sparsify, sae_lens = expander_step(sizes), sparsify_step(sizes), sae_lens_step(sizes)
    times = interleaved(
        {"ours": lambda: ours(x), "eai-sparsify": lambda: sparsify(x), "sae-lens TopK": lambda: sae_lens(x)}, repeats
    )
    return [
        Result(f"training step, {sizes}", name, times["ours"], times[name], "s", Goal(goal), sizes.step(False, 1))
        for name, goal in (("eai-sparsify", 50), ("sae-lens TopK", 100))
    ]
