"""Kernels split their work over threads here, although every process of a whole test run has one."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def several_threads() -> Iterator[None]:
    """Two at least, however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)
