"""A source that fails in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from expander_sae.training import TensorBatches


class Failing(TensorBatches):
    """Fails, or does something else, instead of giving the batch of a certain step of this process."""

    def __init__(self, x: torch.Tensor, at: int, act: Callable[[], None], batch: int = 64) -> None:
        super().__init__(x, batch=batch)
        self.left, self.act = at, act

    def __next__(self) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            self.act()
        return super().__next__()


def fail() -> None:
    raise RuntimeError("the power went out")
