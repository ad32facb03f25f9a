"""What a coder is: a small frozen record of its own parameters that turns activations into codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from expander_sae.dictionaries import Codes, Dictionary


@dataclass(frozen=True)
class Coder(ABC):
    """`coder(dictionary, x)` gives the codes of every token of x [..., m]; any coder works on any dictionary."""

    @abstractmethod
    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes: ...


@dataclass(frozen=True)
class OneShotCoder(Coder):
    """A coder that reads its codes off one product with the dictionary, which may be a learned encoder with a bias."""

    @abstractmethod
    def __call__(
        self, dictionary: Dictionary, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None
    ) -> Codes: ...
