"""Cross-entropy and divergence against those of transformers and torch."""

from __future__ import annotations

import pytest
import torch

from expander_sae.evaluation import losses
from expander_sae.evaluation.losses import token_losses
from expander_sae.evaluation.text import Part


def part(ids, predicts):
    nothing = torch.zeros_like(predicts)
    return Part(ids, torch.arange(len(ids)), predicts, nothing, 0, 0, torch.zeros(*ids.shape, 1))


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return 4 * torch.randn(2, 2, 7, 30, generator=generator)


IDS = torch.arange(14).reshape(2, 7)


def everything_but_the_last():
    predicts = torch.ones(2, 7, dtype=torch.bool)
    predicts[:, -1] = False
    return predicts


def test_cross_entropy_is_the_models_own_loss(language_model):
    model, ids = language_model.model, torch.arange(3, 19).reshape(2, 8)
    predicts = torch.ones(2, 8, dtype=torch.bool)
    predicts[:, -1] = False
    with torch.no_grad():
        found = model(input_ids=ids, labels=ids)
    entropy, divergence = token_losses(part(ids, predicts), found.logits)
    assert float(entropy.mean()) == pytest.approx(float(found.loss), rel=1e-6)
    assert not divergence.any()


def test_divergence_is_that_of_torch(logits, monkeypatch):
    new, clean = logits
    monkeypatch.setattr(losses, "ENTRIES_AT_ONCE", 90)  # three tokens at once
    entropy, divergence = token_losses(part(IDS, everything_but_the_last()), new, clean)
    expected = torch.nn.functional.kl_div(
        new[:, :-1].log_softmax(-1), clean[:, :-1].log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(divergence, expected.flatten())
    targets = IDS[:, 1:].flatten()
    torch.testing.assert_close(
        entropy, torch.nn.functional.cross_entropy(new[:, :-1].flatten(0, 1), targets, reduction="none")
    )


def test_only_predictions_that_count_are_there(logits):
    predicts = everything_but_the_last()
    predicts[1, 2:] = False
    few, _ = token_losses(part(IDS, predicts), logits[0])
    many, _ = token_losses(part(IDS, everything_but_the_last()), logits[0])
    torch.testing.assert_close(few, torch.cat([many[:6], many[6:8]]))
    none, _ = token_losses(part(IDS, torch.zeros_like(predicts)), logits[0])
    assert none.shape == (0,)


def test_equal_predictions_do_not_diverge_at_all(logits):
    half = logits[0].bfloat16()
    _, divergence = token_losses(part(IDS, everything_but_the_last()), half, half.clone())
    assert not divergence.any()
