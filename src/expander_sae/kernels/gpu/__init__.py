"""Kernels in Triton for NVIDIA GPUs; where there is no Triton, one sentence that says how to get it."""

from expander_sae.errors import ExpanderError

try:
    import triton  # noqa: F401
except ImportError as error:
    raise ExpanderError("The gpu kernels need Triton: install it with `pip install 'expander-sae[gpu]'`.") from error
