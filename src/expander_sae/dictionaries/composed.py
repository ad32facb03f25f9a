"""The composed dictionary: columns that are mixtures of a few atoms, `W = B S`."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae import kernels
from expander_sae.dictionaries.base import Dictionary, ScaledColumns
from expander_sae.dictionaries.codes import Codes
from expander_sae.dictionaries.dense import DenseDictionary
from expander_sae.dictionaries.expander import ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.kernels import greedy
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.greedy import Rules
from expander_sae.kernels.inputs import check_finite, padded_with_zeros

COLUMNS_AT_ONCE = 4096
"""Columns written out at a time where the norms of all are wanted."""
CORRELATIONS_AT_ONCE = 1 << 22
"""Correlations with atoms that a pursuit holds at a time."""
LOOKED_AT = 2
"""Features that a pursuit asks for to find the best one that a token has not taken yet; if that is none of them, this
many times more."""


class ComposedDictionary(Dictionary):
    """`W = B S`: p dense atoms, the columns of B, and n mixtures of them, an expander dictionary over atoms as rows.

    The atoms cost m p values, once, and a column d more, so that there can be many times more columns than atoms. One
    encode takes m p + d n multiply-adds. An expander dictionary is the case where B is the identity.
    """

    def __init__(self, atoms: DenseDictionary, mixtures: ExpanderDictionary) -> None:
        super().__init__()
        if mixtures.m != atoms.n:
            raise ExpanderError(f"Mixtures of {mixtures.m} atoms need {mixtures.m} atoms, not {atoms.n}.")
        self.m, self.n = atoms.m, mixtures.n
        self.atoms, self.mixtures = atoms, mixtures
        self._kept_gram: tuple[Tensor, Tensor] | None = None

    def encoder_of_its_own(self) -> ComposedDictionary:
        """Other mixtures of the same atoms, since atoms are what is dear."""
        return ComposedDictionary(self.atoms, copy.deepcopy(self.mixtures))

    def columns(self, indices: Int[Tensor, "*shape"]) -> SparseColumns:
        values = self._written_out(indices)
        return SparseColumns(torch.arange(self.m, device=self.device).expand(values.shape), values)

    def _written_out(self, indices: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape m"]:
        mixtures = self.mixtures.columns(indices.reshape(-1))
        weights = mixtures.values.to(self.atoms.dtype)
        values = nn.functional.embedding_bag(
            mixtures.rows.long(), self.atoms.values, per_sample_weights=weights, mode="sum"
        )
        return values.reshape(*indices.shape, self.m)

    def gram(self, indices: Int[Tensor, "*batch k"], dtype: torch.dtype | None = None) -> Float[Tensor, "*batch k k"]:
        columns = self._written_out(indices).to(dtype or self.dtype)
        return columns @ columns.mT

    def correlate(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self.mixtures.correlate(self.atoms.correlate(x))

    def select(
        self, x: Float[Tensor, "*batch m"], k: int, bias: Float[Tensor, " n"] | None = None, signed: bool = False
    ) -> Codes:
        return self.mixtures.select(self.atoms.correlate(x), k, bias, signed)

    def make_groups(self, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None) -> None:
        self.mixtures.make_groups(self.atoms.correlate(x), bias)

    def glance(
        self,
        x: Float[Tensor, "*batch m"],
        k: int,
        look: float,
        bias: Float[Tensor, " n"] | None = None,
        signed: bool = False,
        allowed: Bool[Tensor, " n"] | None = None,
    ) -> Codes:
        return self.mixtures.glance(self.atoms.correlate(x), k, look, bias, signed, allowed)

    def correlate_at(self, x: Float[Tensor, "*batch m"], indices: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        return self.mixtures.correlate_at(self.atoms.correlate(x), indices)

    def synthesize(self, codes: Codes, onto: Float[Tensor, "*batch m"] | None = None) -> Float[Tensor, "*batch m"]:
        of_atoms = self.mixtures.synthesize(codes)
        total = of_atoms @ self.atoms.values.to(of_atoms.dtype)
        return total if onto is None else onto + total

    def normalise_columns(self) -> None:
        """Scale every mixture so that its column has unit norm; the atoms stay as they are."""
        with torch.no_grad():
            self.mixtures.values.mul_(self.inverse_norms(self.mixtures.dtype)[:, None])

    @torch.no_grad()
    def norms(self) -> Float[Tensor, " n"]:
        """As for every dictionary, but no gradient flows."""
        features = torch.arange(self.n, device=self.device)
        pieces = torch.split(features, COLUMNS_AT_ONCE)
        return torch.cat([torch.linalg.vector_norm(self._written_out(piece), dim=1) for piece in pieces])

    @property
    def learned_values(self) -> int:
        return self.atoms.learned_values + self.mixtures.learned_values

    def _pursue(self, x: Float[Tensor, "batch m"], rules: Rules, orthogonal: bool) -> tuple[Tensor, Tensor]:
        check_finite("x", x)
        scale = self.inverse_norms(x.dtype)
        unit = self.mixtures.values.detach().to(x.dtype) * scale[:, None]
        columns = _UnitMixtures(self, scale, unit, self._gram_of_atoms(x.dtype))
        chunks = torch.split(x, max(1, CORRELATIONS_AT_ONCE // self.atoms.n))
        found = [greedy.pursue(columns, chunk, rules, orthogonal) for chunk in chunks]
        values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return values * columns.scale[indices], indices

    def _gram_of_atoms(self, dtype: torch.dtype) -> Float[Tensor, "p p"]:
        """Inner products of the atoms with each other, made anew only when the atoms have changed."""
        values = self.atoms.values.detach().to(dtype)
        if self._kept_gram is None or self._kept_gram[0].dtype != dtype or not torch.equal(self._kept_gram[0], values):
            # A copy is compared because versions do not count what changes a parameter through its data.
            self._kept_gram = values.clone(), values @ values.T
        return self._kept_gram[1]


def columns_in(dictionary: Dictionary) -> Dictionary:
    """What holds the values of the columns themselves: the mixtures of a composed dictionary, any other one itself."""
    return dictionary.mixtures if isinstance(dictionary, ComposedDictionary) else dictionary


@dataclass(frozen=True)
class _UnitMixtures(ScaledColumns):
    """The columns at unit norm for a pursuit that sees what is left of a token as the atoms see it.

    That is p numbers instead of n, made by one product with the atoms, and the best column is the best mixture of them:
    a `select`, which never holds [batch, n].
    """

    dictionary: ComposedDictionary
    unit: Float[Tensor, "n d"]
    """The mixtures' values, scaled."""
    gram: Float[Tensor, "p p"]
    """Inner products of the atoms with each other."""

    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch p"]:
        return self.dictionary.atoms.correlate(x)

    def best(
        self, view: Float[Tensor, "batch p"], closed: Int[Tensor, "batch c"], signed: bool
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
        count = min(LOOKED_AT, self.n)
        while True:
            scores, found = kernels.select(view, self.unit, self.dictionary.mixtures.rows, count, None, signed)
            open_ones = (found[:, :, None] != closed[:, None, :]).all(dim=2)
            if count == self.n or bool(open_ones.any(dim=1).all()):
                break
            count = min(LOOKED_AT * count, self.n)
        # They are in order, and a token's first open one is its best.
        first = open_ones.int().argmax(dim=1, keepdim=True)
        score = (scores.abs() if signed else scores).gather(1, first)
        return torch.where(open_ones.gather(1, first), score, -torch.inf)[:, 0], found.gather(1, first)[:, 0]

    def at(self, view: Float[Tensor, "batch p"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch k"]:
        return kernels.correlate_at(view, indices, self.unit, self.dictionary.mixtures.rows)

    def inner_products(
        self, feature: Int[Tensor, " batch"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        entries, rows = padded_with_zeros(self.unit[feature], self.dictionary.mixtures.rows[feature])
        seen = nn.functional.embedding_bag(rows.long(), self.gram, per_sample_weights=entries, mode="sum")
        return self.at(seen, indices)
