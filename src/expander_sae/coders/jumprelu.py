"""JumpReLU: every correlation above its feature's threshold is a code, however many there are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.coders.base import CHUNK_ELEMENTS, OneShotCoder
from expander_sae.coders.topk import Entries
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.dictionaries.base import flatten
from expander_sae.kernels.inputs import check_finite


@dataclass(frozen=True)
class JumpReLU(OneShotCoder):
    """One-shot codes: every correlation above the threshold of its feature, which are those of the autoencoder.

    Without thresholds a feature fires above zero, and this is ReLU. How many features fire is up to the token. Computes
    all n correlations of some tokens at a time. Dictionaries of other libraries come with it; training has none.
    """

    signed: bool = False
    """Also fire below minus the threshold."""

    def __call__(
        self,
        dictionary: Dictionary,
        x: Float[Tensor, "*batch m"],
        bias: Float[Tensor, " n"] | None = None,
        thresholds: Float[Tensor, " n"] | None = None,
    ) -> Codes:
        flat = flatten(x, dictionary.m)
        check_finite("x", flat.detach())
        chunks = torch.split(flat, max(1, CHUNK_ELEMENTS // dictionary.n))
        pieces = [self._fired(dictionary.correlate(chunk), bias, thresholds) for chunk in chunks]
        return Codes.concatenate(pieces).reshape(*x.shape[:-1])

    def _fired(
        self,
        scores: Float[Tensor, "batch n"],
        bias: Float[Tensor, " n"] | None,
        thresholds: Float[Tensor, " n"] | None,
    ) -> Codes:
        """The codes that scores stand for, those of a token in descending order."""
        if bias is not None:
            scores = scores + bias
        sizes = scores.detach().abs() if self.signed else scores.detach()
        tokens, features = (sizes > (0.0 if thresholds is None else thresholds)).nonzero(as_tuple=True)
        order = sizes[tokens, features].argsort(descending=True, stable=True)
        tokens, features = tokens[order], features[order]
        return Entries(scores[tokens, features], tokens, features).pack(*scores.shape)
