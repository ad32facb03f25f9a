"""The expander dictionary: d learned values per column, on the coordinates that its support gives."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae import kernels
from expander_sae.dictionaries.base import Dictionary, flatten
from expander_sae.dictionaries.codes import Codes
from expander_sae.dictionaries.gradients import GradientsInPlace
from expander_sae.errors import ExpanderError
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.greedy import Rules
from expander_sae.kernels.groups import GroupedColumns, group_columns
from expander_sae.kernels.inputs import check_finite, choose, padded_with_zeros
from expander_sae.kernels.pursue import reads_row_lists
from expander_sae.supports import NO_ROW, RowLists, Support
from expander_sae.supports.support import build_row_lists

TOKENS_FOR_GROUPS = 256
"""The fewest tokens that say how far coordinates spread."""
DRAWN = 1 << 20
"""Signs drawn at a time."""


def random_signs(
    n: int, d: int, generator: torch.Generator | None = None, part: range | None = None
) -> Float[Tensor, "n d"]:
    """n columns of 1 and -1, or part of them, which the generator draws as it would in one piece."""
    part = range(n) if part is None else part
    signs, lines = torch.empty(len(part), d), max(1, DRAWN // d)
    for start in range(0, n, lines):
        drawn = torch.randint(0, 2, (min(lines, n - start), d), generator=generator)
        first, last = max(start, part.start), min(start + lines, part.stop)
        if first < last:
            signs[first - part.start : last - part.start] = drawn[first - start : last - start]
    return signs.mul_(2).sub_(1)


def _different(indices: Int[Tensor, "*shape"]) -> tuple[Int[Tensor, " f"], Int[Tensor, "*shape"]]:
    """The different numbers among these, ascending, and where among them each is."""
    different: tuple[Tensor, Tensor] = indices.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return different


class ExpanderDictionary(Dictionary):
    """Column j has `values[j]` at the coordinates `support.rows[j]`; where a row is -1 the value is zero and stays so.

    Starts with values of equal size and random sign, columns of unit norm: flat columns have the best average-case
    recovery, and random signs are what keeps structured supports from having exactly dependent columns.
    """

    values: nn.Parameter
    rows: Tensor

    def __init__(
        self,
        support: Support,
        values: Float[Tensor, "n d"] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.m, self.n, self.d = support.m, support.n, support.d
        self._support: Support | None = support
        if values is None:
            values = random_signs(self.n, self.d, generator).div_(support.degrees[:, None] ** 0.5)
        if tuple(values.shape) != (self.n, self.d):
            raise ExpanderError(f"values must be [{self.n}, {self.d}] for this support, not {list(values.shape)}.")
        self.values = nn.Parameter(values.detach().to(device=device, dtype=dtype or values.dtype).clone())
        self._row_lists: RowLists | None = None
        self.grouped: GroupedColumns | None = None
        self.gradients: GradientsInPlace | None = None
        # The file and the support know the rows; a state dict need not repeat them.
        self.register_buffer("rows", support.rows.to(self.values.device), persistent=False)
        if not support.is_even:
            self.values.data.masked_fill_(self.rows < 0, 0)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has too; groups it makes of its own tokens."""
        return {**self.__dict__, "grouped": None, "gradients": None}

    @property
    def support(self) -> Support:
        """Where the values are; stored rows once a column has moved."""
        if self._support is None:
            self._support = Support.from_rows(self.rows, self.m)
        return self._support

    @torch.no_grad()
    def place(
        self, features: Int[Tensor, " f"], rows: Int[Tensor, "f d"], values: Float[Tensor, "f d"] | None = None
    ) -> None:
        """Put columns on other coordinates, distinct and ascending (then -1), with other values if there are any."""
        ascending = (rows[:, 1:] > rows[:, :-1]) | (rows[:, 1:] == NO_ROW)
        if tuple(rows.shape) != (len(features), self.d) or not bool(
            ascending.all() and (rows[:, 0] >= 0).all() and (rows < self.m).all()
        ):
            raise ExpanderError(
                f"A column needs up to {self.d} distinct coordinates below {self.m}, in ascending order."
            )
        if self._support is not None:
            self.rows = self.rows.clone()  # they are its own too
        self.rows.index_copy_(0, features, rows.to(self.rows))
        self._support = self._row_lists = None
        if self.grouped is not None:
            self.grouped.moved(self.rows)
        if values is not None:
            self.values[features] = values.to(self.values).masked_fill(rows < 0, 0)

    def columns(self, indices: Int[Tensor, "*shape"]) -> SparseColumns:
        values, rows = padded_with_zeros(nn.functional.embedding(indices, self.values), self.rows[indices])
        return SparseColumns(rows, values)

    def correlate(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        flat = flatten(x, self.m)
        total = flat.new_zeros(flat.shape[0], self.n, dtype=torch.promote_types(x.dtype, self.dtype))
        values, rows = padded_with_zeros(self.values, self.rows)
        for slot in range(self.d):
            total = torch.addcmul(total, flat.index_select(1, rows[:, slot]), values[:, slot])
        return total.reshape(*x.shape[:-1], self.n)

    def select(
        self, x: Float[Tensor, "*batch m"], k: int, bias: Float[Tensor, " n"] | None = None, signed: bool = False
    ) -> Codes:
        values, indices = kernels.select(flatten(x, self.m), self.values, self.rows, k, bias, signed)
        return Codes(values, indices, self.n).reshape(*x.shape[:-1])

    @torch.no_grad()
    def make_groups(self, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None) -> None:
        flat = flatten(x, self.m)
        check_finite("x", flat)
        if flat.device.type != "cpu":
            raise ExpanderError("Features are looked at in groups on CPUs only; on another device leave look off.")
        if len(flat) < TOKENS_FOR_GROUPS:
            raise ExpanderError(
                f"Groups of features are made for tokens like the first that are coded, at least {TOKENS_FOR_GROUPS}, "
                f"not {len(flat)}; code more at first, or call `make_groups` with some."
            )
        spread = flat.float().square().mean(dim=0).sqrt()
        self.grouped = GroupedColumns(group_columns(self.values, self.rows, bias, spread), self.rows)

    def glance(
        self,
        x: Float[Tensor, "*batch m"],
        k: int,
        look: float,
        bias: Float[Tensor, " n"] | None = None,
        signed: bool = False,
        allowed: Bool[Tensor, " n"] | None = None,
    ) -> Codes:
        if self.grouped is None:
            self.make_groups(x, bias)
        assert self.grouped is not None
        indices = self.grouped.select(flatten(x, self.m), self.values, bias, k, look, signed, allowed)
        indices = indices.reshape(*x.shape[:-1], k)
        missing = None if allowed is None else indices == self.n
        indices = indices if missing is None else indices.masked_fill(missing, 0)
        values = self.correlate_at(x, indices)
        if bias is not None:
            values = values + nn.functional.embedding(indices, bias[:, None])[..., 0]
        return Codes(values if missing is None else values.masked_fill(missing, 0), indices, self.n)

    def correlate_at(self, x: Float[Tensor, "*batch m"], indices: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        used, places = self._used(indices.reshape(-1, indices.shape[-1]))
        return kernels.correlate_at(flatten(x, self.m), places, *used).reshape(indices.shape)

    def synthesize(self, codes: Codes, onto: Float[Tensor, "*batch m"] | None = None) -> Float[Tensor, "*batch m"]:
        weights, k = codes.values, codes.indices.shape[-1]
        base = weights.new_zeros(*weights.shape[:-1], self.m) if onto is None else onto
        used, places = self._used(codes.indices.reshape(-1, k))
        total = kernels.combine(weights.reshape(-1, k), places, *used, base.reshape(-1, self.m))
        return total.reshape(*weights.shape[:-1], self.m)

    def some(self, features: Int[Tensor, " f"]) -> Float[Tensor, "f d"]:
        """The values of some columns, all different."""
        if self.gradients is not None:
            return self.gradients.rows(self.values, features)
        return nn.functional.embedding(features, self.values)

    def _used(self, indices: Int[Tensor, "batch k"]) -> tuple[kernels.SparseMatrix, Int[Tensor, "batch k"]]:
        """The columns that codes use, or all of them if gradients are of all, and where among them."""
        if self.gradients is None:
            return kernels.SparseMatrix(self.values, self.rows), indices
        features, places = _different(indices)
        return kernels.SparseMatrix(self.some(features), self.rows[features]), places

    def explain(
        self,
        x: Float[Tensor, "*batch m"],
        codes: Codes,
        encoder: ExpanderDictionary | None,
        bias: nn.Parameter | None,
        shift: Float[Tensor, " m"] | None = None,
    ) -> tuple[Codes, Float[Tensor, "*batch m"], Float[Tensor, ""]]:
        """Codes of x, what they leave of it, and its sum of squares.

        One-shot codes are those that `encoder` and `bias` gave, to which gradients flow: those of `synthesize` and of
        the encoder's `select`, in fewer passes over [batch, m]. Other codes have no gradient. Gradients flow also to a
        shift that was subtracted to get x, without a gradient then.
        """
        shape, indices = codes.values.shape, codes.indices.reshape(-1, codes.indices.shape[-1])
        added: Tensor | None = bias
        reading = None if encoder is None else kernels.SparseMatrix(encoder.values, encoder.rows)
        writing = None if encoder is self else kernels.SparseMatrix(self.values, self.rows)
        if self.gradients is not None:
            features, indices = _different(indices)
            reading = None if encoder is None else kernels.SparseMatrix(encoder.some(features), encoder.rows[features])
            writing = None if encoder is self else kernels.SparseMatrix(self.some(features), self.rows[features])
            added = None if bias is None else self.gradients.rows(bias, features)
        found, residual, squares = kernels.explain(
            flatten(x, self.m), codes.values.reshape(indices.shape), indices, reading, writing, added, shift
        )
        if encoder is not None:
            codes = Codes(found.reshape(shape), codes.indices, codes.n)
        return codes, residual.reshape(x.shape), squares

    def normalise_columns(self) -> None:
        with torch.no_grad():
            self.values.mul_(self.inverse_norms(self.dtype)[:, None])

    def norms(self) -> Float[Tensor, " n"]:
        return torch.linalg.vector_norm(self.values, dim=1)

    @property
    def learned_values(self) -> int:
        return self.support.entries

    def _pursue(self, x: Float[Tensor, "batch m"], rules: Rules, orthogonal: bool) -> tuple[Tensor, Tensor]:
        lists = self._row_lists_here() if reads_row_lists(choose("auto", x.device), orthogonal) else None
        return kernels.pursue(x, self.values, self.rows, lists, rules, orthogonal=orthogonal)

    def _row_lists_here(self) -> RowLists:
        """The support's row lists, on the device of the values."""
        if self._row_lists is None or self._row_lists.starts.device != self.device:
            # Where columns have moved, a support would first check them all, which takes seven times as long.
            lists = build_row_lists(self.rows.cpu(), self.m) if self._support is None else self._support.row_lists
            parts = (lists.starts, lists.features, lists.slots)
            self._row_lists = RowLists(*(part.to(self.device) for part in parts))
        return self._row_lists

    def extra_repr(self) -> str:
        return f"{self.support}, dtype={self.dtype}"
