"""A coder of the study that the library has no use for: gradient descent on codes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from expander_sae.coders import Coder
from expander_sae.coders.base import code_in_chunks
from expander_sae.coders.fista import SAFETY, largest_eigenvalue
from expander_sae.coders.lasso import largest_penalty
from expander_sae.dictionaries import Codes, Dictionary

_ARRAYS = 6


def descended(
    dictionary: Dictionary,
    x: Float[Tensor, "tokens m"],
    start: Float[Tensor, "tokens n"],
    steps: int,
    penalty: float,
) -> Float[Tensor, "tokens n"]:
    """Non-negative codes after so many accelerated gradient steps on 1/2 |x - W codes|^2 + penalty * sum of the codes.

    The penalty is a share of the one that makes a token's codes zero. A step takes a product with the dictionary in
    either direction.
    """
    matrix = dictionary.to_dense().detach().to(x.dtype)
    weight = penalty * largest_penalty(x @ matrix, signed=False)[:, None]
    size = 1 / (SAFETY * largest_eigenvalue(dictionary, x.dtype).item())
    codes, ahead, momentum = start, start, 1.0
    for _ in range(steps):
        slopes = (x - ahead @ matrix.T) @ matrix
        new = (ahead + size * (slopes - weight)).clamp(min=0)
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, codes, momentum = new + (momentum - 1) / faster * (new - codes), new, faster
    return codes


@dataclass(frozen=True)
class GradientCodes(Coder):
    """The k largest codes after so many gradient steps from zero."""

    k: int
    steps: int
    penalty: float

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        def solve(chunk: Tensor) -> tuple[Tensor, Tensor]:
            zeros = chunk.new_zeros(len(chunk), dictionary.n)
            codes = Codes.from_dense(descended(dictionary, chunk, zeros, self.steps, self.penalty), self.k)
            return codes.values, codes.indices

        return code_in_chunks(dictionary, x, self.k, _ARRAYS * dictionary.n, solve)
