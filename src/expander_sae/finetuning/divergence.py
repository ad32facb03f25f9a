"""How far the patched model's predictions are from its own, with the gradient made on the way."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.evaluation.losses import ENTRIES_AT_ONCE
from expander_sae.evaluation.text import Part


def mean_losses(
    part: Part, logits: Float[Tensor, "pieces length vocabulary"], clean: Float[Tensor, "pieces length vocabulary"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """KL(clean || logits), through which gradients flow, and the cross-entropy, means over the predicted tokens."""
    targets = part.ids.roll(-1, dims=1)
    divergence, entropy = _MeanLosses.apply(logits, clean, targets, part.predicts)  # type: ignore[no-untyped-call]
    return divergence, entropy


class _MeanLosses(torch.autograd.Function):
    """As `token_losses`, but what is kept for the way back is the gradient and no probabilities."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "pieces length vocabulary"],
        clean: Float[Tensor, "pieces length vocabulary"],
        targets: Int[Tensor, "pieces length"],
        predicts: Bool[Tensor, "pieces length"],
    ) -> tuple[Tensor, Tensor]:
        rows = predicts.flatten().nonzero()[:, 0]
        count, targets = max(1, len(rows)), targets.flatten()
        dtype = torch.promote_types(logits.dtype, torch.float32)
        gradient = torch.zeros_like(logits)
        sums = torch.zeros(2, dtype=dtype, device=logits.device)
        for some in torch.split(rows, max(1, ENTRIES_AT_ONCE // logits.shape[-1])):
            new, old = (each.flatten(0, 1)[some].to(dtype).log_softmax(dim=-1) for each in (logits, clean))
            sums[1] -= new.gather(1, targets[some, None]).sum()
            wanted = old.exp()
            sums[0] += (wanted * (old - new)).sum()
            gradient.view(-1, gradient.shape[-1])[some] = ((new.exp_() - wanted) / count).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        divergence, entropy = (sums / count).unbind()
        ctx.mark_non_differentiable(entropy)
        return divergence, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None
