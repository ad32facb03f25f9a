"""Supports whose features touch different numbers of coordinates."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from expander_sae.supports import NO_ROW, Support


def shortened(rows: Int[Tensor, "n d"], seed: int) -> Int[Tensor, "n d"]:
    """The same rows, but of every feature only the first few, at least one."""
    n, d = rows.shape
    degrees = torch.randint(1, d + 1, (n, 1), generator=torch.Generator().manual_seed(seed))
    return torch.where(torch.arange(d) < degrees, rows, NO_ROW).to(rows.dtype)


def uneven_support(m: int, n: int, d: int, seed: int = 0) -> Support:
    """Up to d coordinates for every feature."""
    return Support.from_rows(shortened(Support.make("uniform", m=m, n=n, d=d, seed=seed).rows, seed), m)
