"""Several dictionaries side by side in one index space, such as a few dense columns beside many sparse ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae.dictionaries.base import Dictionary, flatten
from expander_sae.dictionaries.codes import Codes
from expander_sae.errors import ExpanderError
from expander_sae.kernels.columns import SparseColumns


class Union(Dictionary):
    """`W = [W_1 W_2 ...]`: feature j of block b has the index `offsets[b] + j`."""

    def __init__(self, blocks: Sequence[Dictionary]) -> None:
        super().__init__()
        if not blocks:
            raise ExpanderError("A union needs at least one dictionary.")
        widths = {block.m for block in blocks}
        if len(widths) > 1:
            raise ExpanderError(f"The dictionaries of a union must have one width, not {sorted(widths)}.")
        self.blocks = nn.ModuleList(blocks)
        self.m, self.n = blocks[0].m, sum(block.n for block in blocks)

    @property
    def offsets(self) -> list[int]:
        """Where each block starts in the index space, and n at the end."""
        edges = [0]
        for block in self._blocks():
            edges.append(edges[-1] + block.n)
        return edges

    def _blocks(self) -> list[Dictionary]:
        return [block for block in self.blocks if isinstance(block, Dictionary)]

    def _per_block(
        self, indices: Int[Tensor, "*shape"]
    ) -> Iterator[tuple[Dictionary, Int[Tensor, "*shape"], Bool[Tensor, "*shape"]]]:
        """Every block with the indices counted from its start, and the mask of those that are inside it."""
        for block, start in zip(self._blocks(), self.offsets, strict=False):
            inside = (indices >= start) & (indices < start + block.n)
            yield block, torch.where(inside, indices - start, 0), inside

    def encoder_of_its_own(self) -> Union:
        return Union([block.encoder_of_its_own() for block in self._blocks()])

    def columns(self, indices: Int[Tensor, "*shape"]) -> SparseColumns:
        """As for every dictionary; padded to the highest degree of any block, so costly beside a dense one."""
        rows, values = [], []
        for block, local, inside in self._per_block(indices):
            columns = block.columns(local)
            rows.append(columns.rows)
            values.append(columns.values * inside[..., None])
        return SparseColumns(torch.cat(rows, dim=-1), torch.cat(values, dim=-1))

    def correlate(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return torch.cat([block.correlate(x) for block in self._blocks()], dim=-1)

    def select(
        self, x: Float[Tensor, "*batch m"], k: int, bias: Float[Tensor, " n"] | None = None, signed: bool = False
    ) -> Codes:
        flatten(x, self.m)
        if not 1 <= k <= self.n:
            raise ExpanderError(f"k must be between 1 and the number of features, {self.n}, not {k}.")
        values, indices = [], []
        for block, start in zip(self._blocks(), self.offsets, strict=False):
            part = None if bias is None else bias[start : start + block.n]
            codes = block.select(x, min(k, block.n), part, signed)
            values.append(codes.values)
            indices.append(codes.indices + start)
        all_values, all_indices = torch.cat(values, dim=-1), torch.cat(indices, dim=-1)
        ranking = all_values.abs() if signed else all_values
        order = ranking.sort(dim=-1, descending=True, stable=True).indices[..., :k]
        return Codes(all_values.gather(-1, order), all_indices.gather(-1, order), self.n)

    def correlate_at(self, x: Float[Tensor, "*batch m"], indices: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        parts = [block.correlate_at(x, local) * inside for block, local, inside in self._per_block(indices)]
        return torch.stack(parts).sum(dim=0)

    def synthesize(self, codes: Codes, onto: Float[Tensor, "*batch m"] | None = None) -> Float[Tensor, "*batch m"]:
        total = codes.values.new_zeros(*codes.values.shape[:-1], self.m) if onto is None else onto
        for block, local, inside in self._per_block(codes.indices):
            total = block.synthesize(Codes(codes.values * inside, local, block.n), total)
        return total

    def normalise_columns(self) -> None:
        for block in self._blocks():
            block.normalise_columns()

    def norms(self) -> Float[Tensor, " n"]:
        return torch.cat([block.norms() for block in self._blocks()])

    def to_dense(self) -> Float[Tensor, "m n"]:
        return torch.cat([block.to_dense() for block in self._blocks()], dim=1)

    @property
    def learned_values(self) -> int:
        return sum(block.learned_values for block in self._blocks())
