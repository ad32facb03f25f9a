"""Which features a prediction rests on: by gradient times activation, and by taking the largest ones away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError
from expander_sae.interventions.attached import attach
from expander_sae.interventions.hooks import changing, hookpoint_named

Metric = Callable[[Float[Tensor, "batch length vocabulary"]], Float[Tensor, " batch"]]
"""What is explained: a number for every row of logits."""

ROWS_AT_ONCE = 16
"""Ablations that share a forward pass."""


def logit_difference(token: int, other: int | None = None, position: int = -1) -> Metric:
    """How much likelier than `other` the model finds a token behind a position, in logits; without `other`, its logit
    above the mean of all."""

    def difference(logits: Tensor) -> Tensor:
        at = logits[:, position].float()
        return at[:, token] - (at.mean(dim=-1) if other is None else at[:, other])

    return difference


def text_loss(ids: Int[Tensor, " length"]) -> Metric:
    """The mean cross-entropy of the tokens of a text, each given those before it."""

    def loss(logits: Tensor) -> Tensor:
        log = logits[:, :-1].float().log_softmax(dim=-1)
        targets = ids[1:].to(log.device).expand(len(log), -1)
        return -log.gather(2, targets[..., None])[..., 0].mean(dim=1)

    return loss


@dataclass(frozen=True)
class Effect:
    """What one firing of a feature does to the metric."""

    hookpoint: str
    position: int
    feature: int
    activation: float
    by_gradient: float
    """Gradient times activation: how much the metric would fall without this firing, if it were linear in it."""
    by_ablation: float | None = None
    """How much it does fall without this firing; None where that was not tried."""


@dataclass(frozen=True)
class Attribution:
    """All firings of a text, those with the largest effect by gradient first."""

    metric: float
    """Of the model as it is."""
    effects: list[Effect]

    @property
    def tried(self) -> list[Effect]:
        """Those that were taken away, too."""
        return [effect for effect in self.effects if effect.by_ablation is not None]

    @property
    def agreement(self) -> float | None:
        """Spearman's rank correlation of the two measures where both were taken; None for fewer than three firings."""
        pairs = [(effect.by_gradient, effect.by_ablation) for effect in self.tried]
        if len(pairs) < 3:
            return None
        found = float(spearmanr(*zip(*pairs, strict=True)).statistic)
        return None if found != found else found  # all of one size: there are no ranks


def attribute(
    language_model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    ids: Int[Tensor, " length"],
    metric: Metric,
    *,
    ablate: int = 20,
) -> Attribution:
    """The effect of every feature that fires anywhere in the text on the metric, at every hookpoint.

    The gradient is taken with respect to the activations of the model as it is, so one pass back serves all features of
    all dictionaries. The `ablate` largest are then taken away one by one, which is what the gradient approximates.
    """
    if ids.ndim != 1 or len(ids) < 2:
        raise ExpanderError("Attribution needs a text of at least 2 tokens.")
    if ablate < 0:
        raise ExpanderError(f"ablate must be at least 0, not {ablate}.")
    row = ids[None].to(language_model.device)
    with torch.no_grad(), attach(language_model, saes) as attached:
        language_model.model(input_ids=row, use_cache=False)
        codes = {name: attached.codes(name)[0] for name in saes}
    value, gradients = _gradients(language_model, saes, row, metric)
    effects = []
    for name, sae in saes.items():
        slopes = _slopes(sae, codes[name].indices, gradients[name][0])
        position, entry = codes[name].active.nonzero(as_tuple=True)
        columns = (position, codes[name].indices[position, entry], codes[name].values[position, entry],
                   (codes[name].values * slopes)[position, entry])  # fmt: skip
        effects += [Effect(name, *each) for each in zip(*(column.tolist() for column in columns), strict=True)]
    effects.sort(key=lambda effect: -abs(effect.by_gradient))
    tried = _ablated(language_model, saes, row, metric, value, effects[:ablate])
    return Attribution(value, tried + effects[ablate:])


def _gradients(
    language_model: LanguageModel, saes: Mapping[str, SparseAutoencoder], row: Tensor, metric: Metric
) -> tuple[float, dict[str, Float[Tensor, "1 length m"]]]:
    """The metric, and how it changes with the activations at every hookpoint."""
    model = language_model.model
    nothing: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[Tensor], Tensor]:
        def add_nothing(x: Tensor) -> Tensor:
            # A leaf of zeros that is added: its gradient is that of the activations, also between two hookpoints.
            nothing[name] = torch.zeros_like(x, requires_grad=True)
            return x + nothing[name]

        return add_nothing

    with torch.enable_grad(), ExitStack() as stack:
        for name in saes:
            stack.enter_context(changing(model.base_model, hookpoint_named(model, name), watch(name)))
        value = metric(model(input_ids=row, use_cache=False).logits).sum()
        gradients = torch.autograd.grad(value, [nothing[name] for name in saes])
    return float(value.detach()), dict(zip(saes, gradients, strict=True))


def _slopes(
    sae: SparseAutoencoder, indices: Int[Tensor, "length k"], gradient: Float[Tensor, "length m"]
) -> Float[Tensor, "length k"]:
    """How the metric changes with every code: the gradient along the feature's column."""
    return sae.dictionary.correlate_at(gradient.to(sae.dictionary.dtype), indices) / sae.scale


def _ablated(
    language_model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    row: Tensor,
    metric: Metric,
    value: float,
    effects: list[Effect],
) -> list[Effect]:
    """The same effects with what really happens without each: a row of a batch for every one."""
    model, found = language_model.model, []
    for start in range(0, len(effects), ROWS_AT_ONCE):
        some = effects[start : start + ROWS_AT_ONCE]
        with torch.no_grad(), ExitStack() as stack:
            for name, sae in saes.items():
                hook = _without(sae, [(i, each) for i, each in enumerate(some) if each.hookpoint == name])
                stack.enter_context(changing(model.base_model, hookpoint_named(model, name), hook))
            left = metric(model(input_ids=row.expand(len(some), -1), use_cache=False).logits)
        found += [
            Effect(
                each.hookpoint, each.position, each.feature, each.activation, each.by_gradient, value - float(metric_)
            )
            for each, metric_ in zip(some, left, strict=True)
        ]
    return found


def _without(sae: SparseAutoencoder, rows: list[tuple[int, Effect]]) -> Callable[[Tensor], Tensor]:
    """Takes from each of these rows its firing."""
    features = torch.tensor([effect.feature for _, effect in rows], dtype=torch.int64)
    columns = sae.dictionary.columns(features).to_dense(sae.m).detach() / sae.scale if rows else None

    def change(x: Tensor) -> Tensor:
        if columns is None:
            return x
        x = x.clone()
        for (number, effect), column in zip(rows, columns, strict=True):
            x[number, effect.position] -= effect.activation * column.to(x.dtype)
        return x

    return change
