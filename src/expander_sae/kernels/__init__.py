"""The two hot loops, `select` and `pursue`: plain torch, Numba for CPUs, Triton for GPUs, one dispatcher each."""

from expander_sae.kernels.greedy import Rules
from expander_sae.kernels.pursuit import pursue
from expander_sae.kernels.selection import scatter_rows, select

__all__ = ["Rules", "pursue", "scatter_rows", "select"]
