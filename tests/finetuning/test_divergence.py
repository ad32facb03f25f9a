"""The losses of a batch, and the gradient that comes with them, are those of torch's own derivative."""

from __future__ import annotations

import pytest
import torch

from expander_sae.evaluation.losses import token_losses
from expander_sae.evaluation.text import Part
from expander_sae.finetuning import divergence

VOCABULARY = 11


def batch(predicts):
    ids = torch.randint(VOCABULARY, predicts.shape, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(*predicts.shape, 1)
    return Part(ids, torch.zeros(len(ids)), predicts, torch.ones_like(predicts), 0, 0, nothing)


@pytest.mark.parametrize("entries", [VOCABULARY, 3 * VOCABULARY, 2**20])
def test_means_and_gradient_are_those_of_every_token(entries, monkeypatch):
    monkeypatch.setattr(divergence, "ENTRIES_AT_ONCE", entries)
    generator = torch.Generator().manual_seed(1)
    predicts = torch.rand(3, 5, generator=generator) < 0.7
    part = batch(predicts)
    logits, clean = (torch.randn(3, 5, VOCABULARY, generator=generator, requires_grad=True) for _ in range(2))
    found, entropy = divergence.mean_losses(part, logits, clean.detach())
    entropies, divergences = token_losses(part, logits, clean.detach())
    torch.testing.assert_close(found, divergences.mean())
    torch.testing.assert_close(entropy, entropies.mean())
    assert not entropy.requires_grad
    (ours,) = torch.autograd.grad(3 * found, logits)
    (theirs,) = torch.autograd.grad(3 * divergences.mean(), logits)
    torch.testing.assert_close(ours, theirs)
    assert not ours[~predicts].any()


def test_equal_predictions_have_no_divergence_and_a_batch_without_predictions_no_loss():
    part = batch(torch.ones(2, 3, dtype=torch.bool))
    logits = torch.randn(2, 3, VOCABULARY, requires_grad=True)
    same, _ = divergence.mean_losses(part, logits, logits.detach())
    assert float(same.detach()) == pytest.approx(0, abs=1e-6)
    found, entropy = divergence.mean_losses(batch(torch.zeros(2, 3, dtype=torch.bool)), logits, logits.detach())
    assert float(found.detach()) == float(entropy) == 0


def test_half_precision_logits_get_half_precision_gradients():
    part = batch(torch.ones(2, 3, dtype=torch.bool))
    logits, clean = torch.randn(2, 2, 3, VOCABULARY, dtype=torch.bfloat16)
    logits.requires_grad_(True)
    found, _ = divergence.mean_losses(part, logits, clean)
    assert found.dtype == torch.float32
    found.backward()
    assert logits.grad.dtype == torch.bfloat16
