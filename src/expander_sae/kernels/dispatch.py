"""Which version of a kernel runs: compiled for CPUs, Triton for NVIDIA GPUs, plain torch anywhere else."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from expander_sae.errors import ExpanderError

Implementation = Literal["auto", "reference", "cpu", "gpu"]


def choose(implementation: str, device: torch.device) -> str:
    """The version to run on `device`: "reference", "cpu" or "gpu"; refuses one that cannot run there."""
    if implementation not in get_args(Implementation):
        raise ExpanderError(
            f"implementation must be one of {', '.join(get_args(Implementation))}, not {implementation}."
        )
    if implementation == "auto":
        # ROCm devices are called cuda too, and the Triton kernels are laid out for NVIDIA's.
        here = {"cpu": "cpu", "cuda": "gpu" if torch.version.hip is None else "reference"}
        return here.get(device.type, "reference")
    if implementation == "cpu" and device.type != "cpu":
        raise ExpanderError(f"The cpu kernels need tensors on the CPU, not on {device}.")
    return implementation
