"""Whether a dictionary was written out anywhere, as a matrix of all its entries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from expander_sae.interop.unformed import UnformedMatrix
from tests.interop.saes import M, N


class _WholeMatrices(TorchDispatchMode):
    """The operations of torch whose result is as large as the dictionary written out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        found = operation(*arguments, **(options or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, torch.Tensor) and not isinstance(each, UnformedMatrix) and {M, N} <= set(each.shape):
                self.seen.append(str(operation))
        return found


@contextmanager
def nothing_whole() -> Iterator[None]:
    """Fail if a tensor with both M and N among its sizes is made inside."""

    def refuse(matrix: UnformedMatrix) -> None:
        pytest.fail(f"{matrix} was made in full")

    with pytest.MonkeyPatch.context() as patch, _WholeMatrices() as matrices:
        patch.setattr(UnformedMatrix, "formed", refuse)
        yield
    assert matrices.seen == []
