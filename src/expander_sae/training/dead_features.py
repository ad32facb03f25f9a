"""Dead features: who they are, counted in tokens of silence.

Two things bring them back. They share in reconstructing what the living ones leave over (`losses.auxk_loss`): only they
take part and only they learn from it, through both their uses in a tied dictionary, and the selection runs over their
columns alone, so that it costs little where few are dead. And their latent biases rise until they fire (lift), since a
feature of the right direction can still be too small to be among the k largest. Measured on the residual stream of a
135M model (m=576, n=4608, d=7, k=16, random rows, one-shot codes, 600k tokens): AuxK fed with the activations and the
biases, as dense autoencoders have it, left more dead features than none at all; fed with the residual it halved them;
with lift too, 9 % were dead in the end, by silence for 30k tokens, at the same loss.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from expander_sae.dictionaries import Codes
from expander_sae.distribution import Group


class FiringRecord:
    """How many tokens ago every feature last fired, in any process."""

    def __init__(self, n: int, dead_after: int, device: torch.device, first: int = 0) -> None:
        """Of n features, which are all there are or a shard of them from the first on."""
        self._dead_after, self._first = dead_after, first
        self.silent_for: Int[Tensor, " n"] = torch.zeros(n, dtype=torch.int64, device=device)

    def update(self, codes: Codes, tokens: int, group: Group) -> None:
        """Take in the codes of a batch of this many tokens."""
        codes = codes.within(self._first, len(self.silent_for))
        weights = codes.active.flatten().to(torch.float32)
        fired = weights.new_zeros(codes.n).index_add_(0, codes.indices.flatten(), weights)
        self.silent_for += tokens
        self.silent_for.masked_fill_(group.add_up(fired) > 0, 0)

    @property
    def dead(self) -> Bool[Tensor, " n"]:
        """Which features are dead now."""
        return self.silent_for >= self._dead_after
