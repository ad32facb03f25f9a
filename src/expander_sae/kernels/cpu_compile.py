"""How the greedy loops are compiled."""

from __future__ import annotations

import numba

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
"""For functions that Python calls. A division that could raise would make numba count the owners of all arrays around
it, which takes longer than many of these functions do; none divides by zero."""

inlined = numba.njit(
    cache=True, nogil=True, error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""For functions that only compiled code calls. Passing a dozen arrays would take longer than many of them do, and
entrances that Python never uses are a fifth of the time of compiling."""
