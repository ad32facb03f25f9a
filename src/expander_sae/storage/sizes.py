"""What each part of a folder takes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

PARTS = {
    "values": ("values", "integers"),
    "scales": ("scales",),
    "rows": ("rows", "remainders", "quotients", "order", "degrees"),
    "biases": ("bias",),
}
"""How the names of the tensors of each part end."""


def sizes_of(tensors: Mapping[str, Tensor], in_all: int) -> dict[str, int]:
    """Bytes of values, scales, rows and biases, and of the description: the config and the tensors' names."""
    sizes = {part: sum(t.nbytes for name, t in tensors.items() if name.endswith(ends)) for part, ends in PARTS.items()}
    return {**sizes, "description": in_all - sum(sizes.values())}
