"""What every kernel demands of its inputs, checked once before any of them runs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.errors import ExpanderError


def check_columns(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    k: int,
    bias: Float[Tensor, " n"] | None = None,
) -> None:
    """Refuse shapes, devices and sizes that no kernel can work with."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ExpanderError(f"x must be a floating-point tensor [batch, m], not {x.dtype} {list(x.shape)}.")
    if values.ndim != 2 or values.shape != rows.shape:
        raise ExpanderError(
            f"values and rows must both be [n, d], but are {list(values.shape)} and {list(rows.shape)}."
        )
    if rows.dtype != torch.int32:
        raise ExpanderError(f"rows must be int32, not {rows.dtype}.")
    if rows.numel():
        lowest, highest = torch.aminmax(rows)  # compiled code would read past the end of x
        if lowest < 0 or highest >= x.shape[1]:
            raise ExpanderError(
                f"rows must lie between 0 and {x.shape[1] - 1}, not {int(lowest)} to {int(highest)}; is x as wide as "
                f"the dictionary?"
            )
    devices = {tensor.device for tensor in (x, values, rows, bias) if tensor is not None}
    if len(devices) > 1:
        names = ", ".join(sorted(str(device) for device in devices))
        raise ExpanderError(f"x, values, rows and bias must be on one device, but are on {names}.")
    features = values.shape[0]
    if not 1 <= k <= features:
        raise ExpanderError(f"k must be between 1 and the number of features, {features}, not {k}.")
    if bias is not None and tuple(bias.shape) != (features,):
        raise ExpanderError(f"bias must have one entry for each of the {features} features, not {list(bias.shape)}.")


def check_finite(name: str, tensor: Float[Tensor, "rows _"] | Float[Tensor, " rows"]) -> None:
    """Refuse NaN and infinity, naming the first row that has one."""
    if tensor.numel() == 0:
        return
    lowest, highest = torch.aminmax(tensor)  # one pass, no allocation; NaN and infinity survive it
    if bool(torch.isfinite(lowest) & torch.isfinite(highest)):
        return
    finite = torch.isfinite(tensor)
    bad = (~finite.reshape(finite.shape[0], -1).all(dim=1)).nonzero().flatten()
    raise ExpanderError(
        f"{name} must be finite, but {bad.numel()} of its {tensor.shape[0]} rows hold NaN or infinity, "
        f"the first is row {int(bad[0])}."
    )


def working_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The precision of sums: float64 if any input has it, else float32, whatever the inputs are stored in."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def result_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The precision that results are handed back in: what PyTorch's promotion makes of the inputs."""
    present = [tensor.dtype for tensor in tensors if tensor is not None]
    dtype = present[0]
    for other in present[1:]:
        dtype = torch.promote_types(dtype, other)
    return dtype
