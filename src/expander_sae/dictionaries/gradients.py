"""Gradients of a few of very many columns, added up where they lie.

For every use of some columns autograd makes a gradient of all of them and adds it to that of the others. Of 16 million
columns a step uses fifty thousand, four times: fresh memory for all took more than half of it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class GradientsInPlace:
    """What has been learned of some parameters since `begin`, of which only the rows in use are read and written."""

    def __init__(self) -> None:
        self._whole: dict[nn.Parameter, Tensor] = {}
        self._written: list[tuple[nn.Parameter, Int[Tensor, " f"]]] = []
        self._root = torch.zeros((), requires_grad=True)

    def begin(self, *parameters: nn.Parameter) -> None:
        """Let the gradients of these be zero, in the memory that they had."""
        for parameter, features in self._written:
            self._whole[parameter].index_fill_(0, features, 0)
        self._written.clear()
        for parameter in parameters:
            if parameter not in self._whole:
                self._whole[parameter] = torch.zeros_like(parameter)
            parameter.grad = self._whole[parameter]

    def rows(self, parameter: nn.Parameter, features: Int[Tensor, " f"]) -> Float[Tensor, "f ..."]:
        """The rows of these different features, whose gradient is added to the parameter's own on the way back."""
        rows: Tensor = _Rows.apply(self._root, self, parameter, features)  # type: ignore[no-untyped-call]
        return rows

    def add(self, parameter: nn.Parameter, features: Int[Tensor, " f"], gradient: Float[Tensor, "f ..."]) -> None:
        """Add to the gradient of these different features."""
        self._written.append((parameter, features))
        self._whole[parameter].index_add_(0, features, gradient)


class _Rows(torch.autograd.Function):
    """Rows of a parameter that is no input: as one it would be given its gradient when all of its uses are done."""

    @staticmethod
    def forward(
        ctx: Any, root: Tensor, gradients: GradientsInPlace, parameter: nn.Parameter, features: Tensor
    ) -> Tensor:
        ctx.gradients, ctx.parameter, ctx.features = gradients, parameter, features
        return parameter.detach().index_select(0, features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        ctx.gradients.add(ctx.parameter, ctx.features, gradients[0])
        return None, None, None, None
