"""Coders of the study that the library has no use for: gradient descent on codes, and encoders that are trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.coders import Coder
from expander_sae.coders.fista import SAFETY, largest_eigenvalue
from expander_sae.coders.lasso import largest_penalty
from expander_sae.coders.tokens import code_in_chunks
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


class LinearEncoder(nn.Module):
    """ReLU of a product with columns of the dictionary's shape, plus a bias; starts from the dictionary."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self.columns = copy.deepcopy(dictionary)
        self.bias = nn.Parameter(torch.zeros(dictionary.n))

    def before(self, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens n"]:
        """What the ReLU sees."""
        return x @ self.columns.to_dense() + self.bias

    def forward(self, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens n"]:
        return torch.relu(self.before(x))


class MLPEncoder(nn.Module):
    """A linear encoder and, added before its ReLU, a hidden layer, which at first adds nothing."""

    def __init__(self, dictionary: Dictionary, hidden: int, seed: int) -> None:
        super().__init__()
        self.shortcut = LinearEncoder(dictionary)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.hidden, self.out = nn.Linear(dictionary.m, hidden), nn.Linear(hidden, dictionary.n, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens n"]:
        return torch.relu(self.shortcut.before(x) + self.out(torch.relu(self.hidden(x))))


def keep_largest(codes: Float[Tensor, "tokens n"], k: int) -> Float[Tensor, "tokens n"]:
    """The k largest codes of every token, zeros elsewhere."""
    best = codes.topk(k, dim=1)
    return torch.zeros_like(codes).scatter(1, best.indices, best.values)
