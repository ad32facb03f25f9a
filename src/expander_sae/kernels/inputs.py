"""What every kernel demands of its inputs, checked once before any of them runs, and which version then runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from expander_sae.checks import one_of
from expander_sae.errors import ExpanderError
from expander_sae.supports import NO_ROW

Made = TypeVar("Made")
Implementation = Literal["auto", "reference", "cpu", "gpu"]
"""Plain torch, compiled for CPUs, Triton for NVIDIA GPUs, or ("auto") the quickest of these that runs where x is."""


def choose(implementation: str, device: torch.device, versions: tuple[str, ...] = ("reference", "cpu", "gpu")) -> str:
    """Which of a kernel's versions runs on `device`; refuses one that the kernel has not, or that cannot run there."""
    if implementation == "auto":
        # ROCm devices are called cuda too, and the Triton kernels are laid out for NVIDIA's.
        here = {"cpu": "cpu", "cuda": "gpu" if torch.version.hip is None else "reference"}.get(device.type)
        return here if here in versions else "reference"
    one_of("implementation", implementation, ("auto", *versions))
    if implementation == "cpu" and device.type != "cpu":
        raise ExpanderError(f"The cpu kernels need tensors on the CPU, not on {device}.")
    return implementation


def check_inputs(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    k: int,
    bias: Float[Tensor, " n"] | None = None,
    tokens_too: bool = True,
) -> bool:
    """Refuse shapes, devices and numbers that no kernel works with; gives back whether columns differ in length.

    Without `tokens_too` the kernel has to see for itself whether x is finite, where it reads it.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ExpanderError(f"x must be a floating-point tensor [batch, m], not {x.dtype} {list(x.shape)}.")
    if values.ndim != 2 or values.shape != rows.shape:
        raise ExpanderError(
            f"values and rows must both be [n, d], but are {list(values.shape)} and {list(rows.shape)}."
        )
    if rows.dtype != torch.int32:
        raise ExpanderError(f"rows must be int32, not {rows.dtype}.")
    devices = {tensor.device for tensor in (x, values, rows, bias) if tensor is not None}
    if len(devices) > 1:
        names = ", ".join(sorted(str(device) for device in devices))
        raise ExpanderError(f"x, values, rows and bias must be on one device, but are on {names}.")
    features = values.shape[0]
    if not 1 <= k <= features:
        raise ExpanderError(f"k must be between 1 and the number of features, {features}, not {k}.")
    if bias is not None and tuple(bias.shape) != (features,):
        raise ExpanderError(f"bias must have one entry for each of the {features} features, not {list(bias.shape)}.")
    numbers = {"x": x if tokens_too else None, "values": values, "bias": bias}
    return _check_numbers({name: each for name, each in numbers.items() if each is not None}, rows, x.shape[1])


def _check_numbers(named: Mapping[str, Tensor], rows: Int[Tensor, "n d"], width: int) -> bool:
    """Refuse numbers that are not finite and rows that x has not; gives back whether columns differ in length."""
    if rows.device.type == "cpu" or rows.numel() == 0:
        surely_finite = False
        lowest, highest = extremes(rows) if rows.numel() else (0, -1)
    else:  # all that is asked of the device, in one answer: every answer is waited for
        sums = [tensor.detach().sum(dtype=working_dtype(tensor)) for tensor in named.values()]
        *found, low, high = torch.stack([each.double() for each in (*sums, *torch.aminmax(rows))]).tolist()
        surely_finite, lowest, highest = all(map(math.isfinite, found)), int(low), int(high)
    # Compiled code would read past the end of x.
    if lowest < NO_ROW or highest >= width:
        raise ExpanderError(
            f"rows must lie between 0 and {width - 1}, not {lowest} to {highest}; is x as wide as the dictionary?"
        )
    if lowest == NO_ROW:
        _check_padding(rows)
    if not surely_finite:
        for name, tensor in named.items():
            check_finite(name, tensor)
    return lowest == NO_ROW


def _check_padding(rows: Int[Tensor, "n d"]) -> None:
    """Refuse columns without an entry, and places without a row before one with a row."""
    if not remembered(rows, _is_padded):
        raise ExpanderError(f"Every column needs a row, and {NO_ROW} only stands behind the last row of a column.")


def _is_padded(rows: Int[Tensor, "n d"]) -> bool:
    places: Any = rows.numpy() if rows.device.type == "cpu" else rows
    missing = places < 0
    return not bool(missing[:, 0].any() | (missing[:, :-1] > missing[:, 1:]).any())


_remembered = WeakTensorKeyDictionary()


def remembered(rows: Int[Tensor, "n d"], make: Callable[[Tensor], Made]) -> Made:
    """make(rows), which is made anew only once the rows have changed: that is seldom, and a step asks five times.

    What is made must hold no reference to the rows: it is forgotten when they are.
    """
    if rows.is_inference():  # nothing counts their changes
        return make(rows)
    version, made = _remembered.get(rows, (None, {}))  # type: ignore[no-untyped-call]
    if version != rows._version:
        made = {}
        _remembered[rows] = rows._version, made
    if make not in made:
        made[make] = make(rows)
    return made[make]


def padded_with_zeros(
    values: Float[Tensor, "n d"], rows: Int[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n d"]]:
    """The same columns, with zeros at coordinate 0 where shorter ones have no entry: sums then take no notice of it."""
    return values.masked_fill(rows < 0, 0), rows.clamp_min(0)


def with_lengths(
    values: Float[Tensor, "n d"], rows: Int[Tensor, "n d"], uneven: bool
) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n d"], Int[Tensor, " n"] | None]:
    """The same, and how many entries every column has, if that differs."""
    if not uneven:
        return values, rows, None
    return *padded_with_zeros(values, rows), (rows >= 0).sum(dim=1, dtype=torch.int32)


def check_finite(name: str, tensor: Float[Tensor, "rows _"] | Float[Tensor, " rows"]) -> None:
    """Refuse NaN and infinity, naming the first row that has one."""
    if tensor.numel() == 0 or _surely_finite(tensor):
        return
    finite = torch.isfinite(tensor)
    if bool(finite.all()):
        return
    bad = (~finite.reshape(finite.shape[0], -1).all(dim=1)).nonzero().flatten()
    raise ExpanderError(
        f"{name} must be finite, but {bad.numel()} of its {tensor.shape[0]} rows hold NaN or infinity, "
        f"the first is row {int(bad[0])}."
    )


# On a CPU, both look with NumPy, which uses one thread: the threads that torch would use spin for some milliseconds
# after their work, on the cores that the compiled kernel is about to need (measured: a quarter of a `select`).


def _surely_finite(tensor: Tensor) -> bool:
    """Whether one cheap pass shows that all entries are finite; a sum that overflows leaves it open."""
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(tensor.detach().numpy().sum()))
    lowest, highest = torch.aminmax(tensor)
    return bool(torch.isfinite(lowest) & torch.isfinite(highest))


def extremes(integers: Tensor) -> tuple[int, int]:
    """The smallest and the largest entry."""
    if integers.device.type == "cpu":
        array = integers.numpy()
        return int(array.min()), int(array.max())
    lowest, highest = torch.aminmax(integers)
    return int(lowest), int(highest)


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
