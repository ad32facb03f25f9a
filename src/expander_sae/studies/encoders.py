"""Encoders that are trained beside a dictionary: a linear one, and one with a hidden layer as well."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.dictionaries import Dictionary


class LinearEncoder(nn.Module):
    """ReLU of a product with columns of the dictionary's shape, plus a bias; starts from the dictionary."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self.columns = copy.deepcopy(dictionary)
        self.bias = nn.Parameter(torch.zeros(dictionary.n))

    @property
    def learned_values(self) -> int:
        """How many learned numbers there are."""
        return self.columns.learned_values + self.bias.numel()

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

    @property
    def learned_values(self) -> int:
        """How many learned numbers there are."""
        layers = [*self.hidden.parameters(), *self.out.parameters()]
        return self.shortcut.learned_values + sum(each.numel() for each in layers)

    def forward(self, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens n"]:
        return torch.relu(self.shortcut.before(x) + self.out(torch.relu(self.hidden(x))))


def keep_largest(codes: Float[Tensor, "tokens n"], k: int) -> Float[Tensor, "tokens n"]:
    """The k largest codes of every token, zeros elsewhere."""
    best = codes.topk(k, dim=1)
    return torch.zeros_like(codes).scatter(1, best.indices, best.values)
