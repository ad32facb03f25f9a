"""One dictionary in fine-tuning: the autoencoder inside the language model, its optimizer, and the step they take."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, OneShotCoder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.text import Part
from expander_sae.finetuning.codes import differentiable_residual
from expander_sae.finetuning.config import FinetuneConfig
from expander_sae.finetuning.divergence import mean_losses
from expander_sae.interventions.replaced import PatchedModel
from expander_sae.training.optimizer_state import learned_state, make_moments
from expander_sae.training.schedule import learning_rate_for, rate_at

SHARE_OF_TRAINING = 1 / 3
"""The default learning rate, as a share of the one that training takes."""


def default_learning_rate(sae: SparseAutoencoder) -> float:
    """The default peak: a third of what training takes for as many columns with as many values."""
    one_shot = isinstance(sae.coder, OneShotCoder)
    return SHARE_OF_TRAINING * learning_rate_for(sae.n, sae.dictionary.learned_values / sae.n, one_shot)


class Finetuner:
    """An autoencoder that learns from what the language model predicts with it in place."""

    def __init__(self, config: FinetuneConfig, sae: SparseAutoencoder, model: PatchedModel, variation: float) -> None:
        """`variation` is the mean squared distance of activations from their mean."""
        self.config, self.sae, self.tokens = config, sae, 0
        self.peak = config.learning_rate or default_learning_rate(sae)
        self._model, self._variation = model, variation
        self._unit_columns = isinstance(sae.coder, OMP)
        self._optimizer = torch.optim.Adam(sae.parameters(), lr=self.peak, betas=config.betas, fused=True)
        if self._unit_columns:
            sae.dictionary.normalise_columns()  # which changes no reconstruction

    def step(self, part: Part) -> dict[str, float]:
        """Learn from a batch; gives back kl, fvu, ce, grad_norm and learning_rate."""
        rate = rate_at(self.config, self.peak, self.tokens)
        for options in self._optimizer.param_groups:
            options["lr"] = rate
        losses = self.losses(part)
        self._optimizer.zero_grad()
        (losses["kl"] + self.config.fvu_weight * losses["fvu"]).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(list(self.sae.parameters()), self.config.clip)
        self.tokens += part.tokens
        if not norm.isfinite():
            raise ExpanderError(f"The loss is not finite after {self.tokens:,} tokens; use a smaller learning rate.")
        self._optimizer.step()
        if self._unit_columns:
            self.sae.dictionary.normalise_columns()
        found = {**losses, "grad_norm": norm}
        return {name: float(value.detach()) for name, value in found.items()} | {"learning_rate": rate}

    def losses(self, part: Part) -> dict[str, Float[Tensor, ""]]:
        """kl and fvu, through which gradients flow, and ce."""
        with torch.no_grad():
            clean = self._model.logits(part.ids, part.activations)
        x = part.x.to(self.sae.pre_bias.dtype)
        residual = differentiable_residual(self.sae, x) / self.sae.scale
        fvu = residual.square().sum() / (max(1, len(x)) * self._variation)
        divergence, entropy = mean_losses(part, self._model.logits(part.ids, part.replaced_by(x - residual)), clean)
        return {"kl": divergence, "fvu": fvu, "ce": entropy}

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on; with `tokens`, all that there is."""
        return learned_state(self.sae, self._optimizer)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], tokens: int) -> None:
        """Be again what `state_dict` was taken of, after this many tokens."""
        make_moments(self.sae, self._optimizer, state)
        self.tokens = tokens
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
