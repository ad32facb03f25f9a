"""A dictionary as the matrix that other libraries ask for, of which only what they read is ever made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map_only

from expander_sae.dictionaries import Dictionary

_aten = torch.ops.aten


class UnformedMatrix(Tensor):
    """The columns of a dictionary times a factor, as rows [n, m] or as columns [m, n], without the memory of either.

    Reading some features, the norms of all, the shape or the dtype costs what it says. Anything else makes the whole
    matrix, for that one operation. No gradient flows back.
    """

    _dictionary: Dictionary
    _factor: float
    _as_rows: bool

    @staticmethod
    def __new__(
        cls, dictionary: Dictionary, factor: float, dtype: torch.dtype, device: torch.device, *, as_rows: bool
    ) -> Self:
        """`as_rows` says which way round: features first, as in `W_dec`, or last, as in `W_enc`."""
        shape = (dictionary.n, dictionary.m) if as_rows else (dictionary.m, dictionary.n)
        made = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        made._dictionary, made._factor, made._as_rows = dictionary, factor, as_rows
        return made

    def formed(self) -> Float[Tensor, "rows columns"]:
        """The matrix, in full."""
        columns = self._read(torch.arange(self._dictionary.n, device=self._dictionary.device))
        return columns if self._as_rows else columns.T

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"UnformedMatrix({list(self.shape)}, dtype={self.dtype}, {self._dictionary})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        operation: Any,
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what can be done without the matrix in that way; make it for everything else."""
        first = arguments[0] if arguments else None
        found = first._cheaply(operation, arguments[1:], options or {}) if isinstance(first, UnformedMatrix) else None
        if found is None:
            formed = tree_map_only(UnformedMatrix, UnformedMatrix.formed, (arguments, dict(options or {})))
            found = operation(*formed[0], **formed[1])
        return found

    def _cheaply(self, operation: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Tensor | None:
        features, coordinates = (0, 1) if self._as_rows else (1, 0)
        if operation in (_aten.detach.default, _aten.alias.default):
            return self._like(self.dtype, self._as_rows)
        if operation in (_aten.t.default, _aten.transpose.int, _aten.permute.default):
            return self._like(self.dtype, not self._as_rows)
        if operation is _aten._to_copy.default and options.get("device") in (None, self.device):
            return self._like(options.get("dtype") or self.dtype, self._as_rows)
        if operation is _aten.index.Tensor:
            index = arguments[0][features] if len(arguments[0]) == features + 1 else None
            if index is not None and index.dtype != torch.bool and arguments[0][:features] in ([], [None]):
                return self._read(index) if self._as_rows else self._read(index).movedim(-1, 0)
        if operation is _aten.select.int and arguments[0] % 2 == features:
            return self._read(torch.tensor(arguments[1]))
        if operation is _aten.linalg_vector_norm.default and _along(arguments) == coordinates:
            norms = (self._dictionary.norms() * self._factor).to(self.dtype)
            return norms.unsqueeze(coordinates) if arguments[2:] == (True,) else norms
        return None

    def _read(self, features: Tensor) -> Float[Tensor, "*features m"]:
        """Some features, one after the other."""
        with torch.no_grad():
            columns = self._dictionary.columns(features.to(self._dictionary.device) % self._dictionary.n)
            return (columns.to_dense(self._dictionary.m) * self._factor).to(self.dtype)

    def _like(self, dtype: torch.dtype, as_rows: bool) -> UnformedMatrix:
        return UnformedMatrix(self._dictionary, self._factor, dtype, self.device, as_rows=as_rows)


def _along(arguments: Sequence[Any]) -> int | None:
    """The one dimension that Euclidean norms are asked for along; None for other norms, or all dimensions."""
    order, dimensions = [*arguments[:2], None][:2] if arguments else (2, None)
    return dimensions[0] % 2 if order == 2 and dimensions is not None and len(dimensions) == 1 else None
