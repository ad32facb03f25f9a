"""What coders cost in multiply-adds: of activations or codes with values of a dictionary or of a network.

A column has `entries` values, m of a dense dictionary and d of an expander one, and each takes part in one multiply-add
wherever its column does. Comparisons, thresholds and the optimizer are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.coders import CoordinateDescent
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.kernels.columns import SparseColumns
from expander_sae.studies.coding.config import KNOWN_CODES, MLP, NEITHER, TOPK


@dataclass(frozen=True)
class Sizes:
    """The sizes that a price is computed from."""

    m: int
    n: int
    entries: int
    k: int
    hidden: int

    @property
    def product(self) -> int:
        """One product of an activation, or of the codes of all features, with the whole dictionary."""
        return self.n * self.entries

    def encoding(self, coder: str) -> int:
        """An encoder's codes of a token."""
        return self.product + (self.m * self.hidden + self.hidden * self.n if coder == MLP else 0)

    def descending(self, steps: int) -> int:
        """Gradient steps on a token's codes: a product in either direction each."""
        return 2 * steps * self.product

    def pursuing(self) -> int:
        """Orthogonal matching pursuit: one product; then per step the inner products with the columns so far, two
        triangular solves, the change of the residual, and of the correlations with what shares a changed coordinate."""
        steps = [
            step * self.entries + step * step + step * self.entries
            + min(self.m, step * self.entries) * self.product // self.m
            for step in range(1, self.k + 1)
        ]  # fmt: skip
        return self.product + sum(steps)

    def choosing(self, candidates: int) -> int:
        """A pursuit among so many candidates: one product, their inner products, then per step the change of their
        correlations and two triangular solves."""
        gram = candidates * (candidates + 1) // 2 * self.entries
        return self.product + gram + sum(step * candidates + step * step for step in range(1, self.k + 1))

    def encoder_step(self, coder: str, setting: str) -> int:
        """A token in a step of training an encoder, and the dictionary with it where neither is known.

        Forward the encoder and the columns; backward a product for every operand that learns or passes on a gradient,
        which is all but the activations.
        """
        inner = self.hidden * self.n if coder == MLP else 0
        encoder = 2 * self.encoding(coder) + inner
        if setting == KNOWN_CODES:
            return encoder
        return encoder + (3 if setting == NEITHER else 2) * self.product

    def library_step(self, coder: str, coding: float) -> int:
        """A token in a step of the library's training: its codes, and k columns forward and backward.

        Backward goes to the columns, and with TopK to the codes and through them to the encoder.
        """
        return round(coding) + (4 if coder == TOPK else 2) * self.k * self.entries

    def least_squares(self, tokens: int) -> int:
        """Columns from known codes: sums over tokens, and a system of n equations with m right sides."""
        return tokens * (self.k**2 + self.k * self.m) + self.n**3 // 3 + self.n**2 * self.m


@dataclass
class Tally:
    """Multiply-adds counted while they are done."""

    total: int = 0


class CountingDictionary(Dictionary):
    """A dictionary that counts the multiply-adds of what it is asked; codes of zero cost nothing."""

    def __init__(self, dictionary: Dictionary, entries: int, tally: Tally) -> None:
        super().__init__()
        self.inner, self.entries, self.tally = dictionary, entries, tally
        self.m, self.n = dictionary.m, dictionary.n

    def columns(self, indices: Int[Tensor, "*shape"]) -> SparseColumns:
        return self.inner.columns(indices)

    def correlate(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        self.tally.total += x[..., 0].numel() * self.n * self.entries
        return self.inner.correlate(x)

    def correlate_at(self, x: Float[Tensor, "*batch m"], indices: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        self.tally.total += indices.numel() * self.entries
        return self.inner.correlate_at(x, indices)

    def synthesize(self, codes: Codes, onto: Float[Tensor, "*batch m"] | None = None) -> Float[Tensor, "*batch m"]:
        self.tally.total += int(codes.l0.sum()) * self.entries
        return self.inner.synthesize(codes, onto)

    def gram(self, indices: Int[Tensor, "*batch k"], dtype: torch.dtype | None = None) -> Float[Tensor, "*batch k k"]:
        self.tally.total += indices.numel() * indices.shape[-1] * self.entries
        return self.inner.gram(indices, dtype)

    def select(
        self, x: Float[Tensor, "*batch m"], k: int, bias: Float[Tensor, " n"] | None = None, signed: bool = False
    ) -> Codes:
        self.tally.total += x[..., 0].numel() * self.n * self.entries
        return self.inner.select(x, k, bias, signed)

    def normalise_columns(self) -> None:
        self.inner.normalise_columns()

    def norms(self) -> Float[Tensor, " n"]:
        return self.inner.norms()

    @property
    def learned_values(self) -> int:
        return self.inner.learned_values


@dataclass(frozen=True)
class CountedDescent(CoordinateDescent):
    """Coordinate descent that counts its sweeps over the working set as well."""

    tally: Tally = field(default_factory=Tally)

    def sweep(
        self,
        codes: Float[Tensor, "batch w"],
        slopes: Float[Tensor, "batch w"],
        gram: Float[Tensor, "batch w w"],
        curvature: Float[Tensor, "batch w"],
        penalty: Float[Tensor, " batch"],
    ) -> None:
        self.tally.total += gram.numel()
        super().sweep(codes, slopes, gram, curvature, penalty)


def counted_lasso(
    dictionary: Dictionary, entries: int, x: Float[Tensor, "tokens m"], penalty: float
) -> tuple[Codes, float]:
    """Lasso codes, and the multiply-adds per token that coordinate descent took for them."""
    tally = Tally()
    codes = CountedDescent(penalty, tally=tally)(CountingDictionary(dictionary, entries, tally), x)
    return codes, tally.total / len(x)
