"""Kernels compiled by Numba for CPUs."""
