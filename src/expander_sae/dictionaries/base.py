"""What every dictionary can do. Coders, autoencoders and files speak to this and nothing narrower.

A dictionary is a matrix `W` [m, n] that is never formed unless asked for. Subclasses say what their columns are; the
operations below follow, and a subclass overrides one where its structure makes it cheaper.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae.dictionaries.codes import Codes
from expander_sae.errors import ExpanderError
from expander_sae.kernels import greedy
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.greedy import Rules
from expander_sae.kernels.inputs import check_finite
from expander_sae.kernels.refit import least_squares

NO_GROUPS = (
    "Only an expander dictionary in one process, or mixtures of atoms, can have its features in groups; leave look off."
)


class Dictionary(nn.Module, ABC):
    """n columns of width m; values are parameters, gradients flow through the entries that a token uses."""

    m: int
    """Width of an activation."""
    n: int
    """Number of columns."""

    @abstractmethod
    def columns(self, indices: Int[Tensor, "*shape"]) -> SparseColumns:
        """The columns of `indices` as coordinates and values [*shape, d]."""

    @abstractmethod
    def correlate(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """`W^T x`, all n entries of it."""

    @abstractmethod
    def select(
        self, x: Float[Tensor, "*batch m"], k: int, bias: Float[Tensor, " n"] | None = None, signed: bool = False
    ) -> Codes:
        """The k largest entries of `W^T x + bias` (by magnitude when `signed`), descending, without holding all n."""

    def make_groups(self, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None) -> None:
        """Put the features in groups of alike columns, for tokens like these, so that `glance` can look at a few."""
        raise ExpanderError(NO_GROUPS)

    def glance(
        self,
        x: Float[Tensor, "*batch m"],
        k: int,
        look: float,
        bias: Float[Tensor, " n"] | None = None,
        signed: bool = False,
        allowed: Bool[Tensor, " n"] | None = None,
    ) -> Codes:
        """What `select` would give if there were only the features that a token looks at, at most this share of them.

        Entries are exact, but features may be missing. Groups are made of the first tokens if `make_groups` has not.
        Only features that are allowed are chosen, and where a token looks at fewer than k of them, the last entries
        are zero.
        """
        raise ExpanderError(NO_GROUPS)

    @abstractmethod
    def normalise_columns(self) -> None:
        """Scale every column to unit norm, in place; zero columns stay zero."""

    @abstractmethod
    def norms(self) -> Float[Tensor, " n"]:
        """The Euclidean norm of every column."""

    @property
    @abstractmethod
    def learned_values(self) -> int:
        """How many learned numbers the dictionary holds."""

    def encoder_of_its_own(self) -> Dictionary:
        """A dictionary on the same support whose values may become others, to read codes off."""
        return copy.deepcopy(self)

    def correlate_at(self, x: Float[Tensor, "*batch m"], indices: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """`W^T x` at some features of each token."""
        return self.columns(indices).correlate(x)

    def synthesize(self, codes: Codes, onto: Float[Tensor, "*batch m"] | None = None) -> Float[Tensor, "*batch m"]:
        """`W codes`, the activation that the codes stand for; added to `onto` if there is one."""
        return self.columns(codes.indices).combine(codes.values, self.m, onto)

    def gram(self, indices: Int[Tensor, "*batch k"], dtype: torch.dtype | None = None) -> Float[Tensor, "*batch k k"]:
        """Inner products between the columns of each token, in the precision of the values unless `dtype` is given."""
        columns = self.columns(indices)
        return SparseColumns(columns.rows, columns.values.to(dtype or self.dtype)).gram(self.m)

    def gram_columns(self, indices: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape n"]:
        """Inner products of the columns of `indices` with all n columns."""
        return self.correlate(self.columns(indices).to_dense(self.m))

    def to_dense(self) -> Float[Tensor, "m n"]:
        """The matrix W."""
        return self.columns(torch.arange(self.n, device=self.device)).to_dense(self.m).T

    @property
    def coded(self) -> int:
        """How many features its codes tell apart: those that other processes hold too, if there are such."""
        return self.n

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the values are stored in."""
        return next(self.parameters()).dtype

    def pursue(self, x: Float[Tensor, "*batch m"], rules: Rules, *, orthogonal: bool) -> Codes:
        """Greedy codes by matching pursuit, or by orthogonal matching pursuit; no gradient flows through the choice."""
        flat = flatten(x, self.m)
        with torch.no_grad():
            working = flat.to(torch.promote_types(flat.dtype, torch.float32))
            values, indices = self._pursue(working, rules, orthogonal)
        return Codes(values.to(x.dtype), indices, self.n).reshape(*x.shape[:-1])

    def _pursue(self, x: Float[Tensor, "batch m"], rules: Rules, orthogonal: bool) -> tuple[Tensor, Tensor]:
        check_finite("x", x)
        columns = self.unit_columns(x.dtype)
        values, indices = greedy.pursue(columns, x, rules, orthogonal)
        return values * columns.scale[indices], indices

    def inverse_norms(self, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """One over every column's norm, zero for a zero column."""
        norms = self.norms().to(dtype)
        return torch.where(norms > 0, 1 / norms, 0.0)

    def unit_columns(self, dtype: torch.dtype) -> ScaledColumns:
        """The same columns at unit norm, for tokens of some precision; zero columns stay zero."""
        return ScaledColumns(self, self.inverse_norms(dtype))

    def extra_repr(self) -> str:
        return f"m={self.m}, n={self.n}, learned_values={self.learned_values}, dtype={self.dtype}"


@dataclass(frozen=True)
class ScaledColumns(greedy.UnitColumns):
    """A dictionary with its columns scaled to unit norm, which the greedy loops and thresholding ask for."""

    dictionary: Dictionary
    scale: Float[Tensor, " n"]
    """One over every column's norm: codes times this are codes for the dictionary as it is."""

    @property
    def n(self) -> int:
        return self.dictionary.n

    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        return self.dictionary.correlate(x) * self.scale

    def inner_products(
        self, feature: Int[Tensor, " batch"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        column = self.dictionary.columns(feature).to_dense(self.dictionary.m) * self.scale[feature, None]
        return self.dictionary.correlate_at(column, indices) * self.scale[indices]

    def synthesize(self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch m"]:
        return self.dictionary.synthesize(Codes(values * self.scale[indices], indices, self.dictionary.n))

    def fit(
        self,
        x: Float[Tensor, "batch m"],
        values: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
        *,
        signed: bool,
    ) -> Float[Tensor, "batch k"]:
        """The least-squares codes of each token's nonzero values, non-negative unless signed; zeros stay zero.

        At unit norm, what counts as linearly dependent does not depend on a column's scale.
        """
        scale = self.scale[indices]
        gram = self.dictionary.gram(indices, x.dtype) * scale[:, :, None] * scale[:, None, :]
        target = self.dictionary.correlate_at(x, indices) * scale
        dependent = greedy.DEPENDENT[x.element_size()]
        return least_squares(gram, target, values, values != 0, signed=signed, dependent=dependent)


def flatten(x: Float[Tensor, "*batch m"], m: int) -> Float[Tensor, "batch m"]:
    """x as a matrix of tokens; refuses another width, and integers."""
    if x.ndim < 1 or x.shape[-1] != m:
        raise ExpanderError(f"Activations must be [..., {m}], not {list(x.shape)}.")
    if not x.is_floating_point():
        raise ExpanderError(f"Activations must be floating-point, not {x.dtype}.")
    return x.reshape(-1, m)
