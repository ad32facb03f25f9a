"""The two hot loops, `select` and `pursue`: plain torch, Numba for CPUs, Triton for GPUs, one dispatcher each."""

from expander_sae.kernels.explain import SparseMatrix, explain, square_norm
from expander_sae.kernels.greedy import Rules
from expander_sae.kernels.products import combine, correlate_at
from expander_sae.kernels.pursue import pursue
from expander_sae.kernels.select import select

__all__ = ["Rules", "SparseMatrix", "combine", "correlate_at", "explain", "pursue", "select", "square_norm"]
