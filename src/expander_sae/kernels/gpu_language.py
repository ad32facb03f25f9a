"""Triton, or one sentence that says how to get it."""

from __future__ import annotations

from expander_sae.errors import ExpanderError

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ExpanderError("The gpu kernels need Triton: install it with `pip install 'expander-sae[gpu]'`.") from error

__all__ = ["tl", "triton"]
