"""Dead features: who they are, and what brings them back.

Two things do. Dead features share in reconstructing what the living ones leave over (AuxK): only they take part and
only they learn from it, through both their uses in a tied dictionary, and the selection runs over their columns alone,
so that it costs little where few are dead. And their latent biases rise until they fire (lift), since a feature of the
right direction can still be too small to be among the k largest. Measured on the residual stream of a 135M model
(m=576, n=4608, d=7, k=16, random rows, one-shot codes, 600k tokens): AuxK fed with the activations and the biases, as
dense autoencoders have it, left more dead features than none at all; fed with the residual it halved them; with lift
too, 9 % were dead in the end, by silence for 30k tokens, at the same loss.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae import kernels
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes, Dictionary, ExpanderDictionary
from expander_sae.distribution import Group
from expander_sae.training.losses import fvu


class FiringRecord:
    """How many tokens ago every feature last fired, in any process."""

    def __init__(self, n: int, dead_after: int, device: torch.device) -> None:
        self._dead_after = dead_after
        self.silent_for: Int[Tensor, " n"] = torch.zeros(n, dtype=torch.int64, device=device)

    def update(self, codes: Codes, tokens: int, group: Group) -> None:
        """Take in the codes of a batch of this many tokens."""
        weights = codes.active.flatten().to(torch.float32)
        # Of no code at all, bincount makes integers, which the processes could not add up.
        fired = torch.bincount(codes.indices.flatten(), weights, minlength=codes.n).to(torch.float32)
        self.silent_for += tokens
        self.silent_for[group.add_up(fired) > 0] = 0

    @property
    def dead(self) -> Bool[Tensor, " n"]:
        """Which features are dead now."""
        return self.silent_for >= self._dead_after


def auxk_loss(
    sae: SparseAutoencoder,
    residual: Float[Tensor, "tokens m"],
    dead: Int[Tensor, " dead"],
    k: int,
    total: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Share of the residual's variation `total` that k dead features per token leave over; only they get a gradient."""
    residual = residual.detach()
    scores, chosen = _largest(sae.encoder, dead, residual, min(k, len(dead)))
    return fvu(_without(residual, sae.dictionary, dead, scores.relu(), chosen), total)


def _largest(
    encoder: Dictionary, features: Int[Tensor, " f"], x: Float[Tensor, "tokens m"], k: int
) -> tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
    """The largest correlations among some features, and where in their list."""
    values = nn.functional.embedding(features, encoder.get_parameter("values"))
    if isinstance(encoder, ExpanderDictionary):
        return kernels.select(x, values, encoder.rows[features], k)
    best = (x @ values.T).topk(k)
    return best.values, best.indices


def _without(
    residual: Float[Tensor, "tokens m"],
    dictionary: Dictionary,
    features: Int[Tensor, " f"],
    codes: Float[Tensor, "tokens k"],
    chosen: Int[Tensor, "tokens k"],
) -> Float[Tensor, "tokens m"]:
    """The residual less the weighted sum of the chosen columns among some features."""
    values = nn.functional.embedding(features, dictionary.get_parameter("values"))
    if isinstance(dictionary, ExpanderDictionary):
        return kernels.combine(-codes, chosen, values, dictionary.rows[features], residual)
    return residual - nn.functional.embedding_bag(chosen, values, per_sample_weights=codes, mode="sum")
