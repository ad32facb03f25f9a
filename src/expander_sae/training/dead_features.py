"""Dead features: who they are, and the loss that brings them back.

Features that have not fired for long share in reconstructing what the living ones leave over (AuxK). Only they take
part, and only they learn from it: x and the residual are constants here. Their own encoder selects, so that a tied
column is turned towards what it reconstructs, and the selection runs over their columns alone, so that the loss costs
little where few are dead.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae import kernels
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes, Dictionary, ExpanderDictionary
from expander_sae.kernels.columns import SparseColumns
from expander_sae.training.distribution import Group
from expander_sae.training.losses import fvu, variation


class FiringRecord:
    """How many tokens ago every feature last fired, in any process."""

    def __init__(self, n: int, dead_after: int, device: torch.device) -> None:
        self.dead_after = dead_after
        self.silent_for: Int[Tensor, " n"] = torch.zeros(n, dtype=torch.int64, device=device)

    def update(self, codes: Codes, tokens: int, group: Group) -> None:
        """Take in the codes of a batch of this many tokens."""
        weights = codes.active.flatten().to(torch.float32)
        fired = torch.bincount(codes.indices.flatten(), weights, minlength=codes.n)
        self.silent_for += tokens
        self.silent_for[group.add_up(fired) > 0] = 0

    @property
    def dead(self) -> Bool[Tensor, " n"]:
        """Which features are dead now."""
        return self.silent_for >= self.dead_after
