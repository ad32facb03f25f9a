"""A part of an expander dictionary whose other columns are held by other processes.

Each process holds as many columns, in the order of their numbers. A code names a column of the whole; the k largest of
all columns are among the k largest of every part, so one all-gather of k candidates finds the codes that one process
would, and a reconstruction is the sum of the parts'. Gradients of columns stay where the columns are. What every
process has, such as tokens or a bias they are centred by, gets a part of its gradient in each: the sum is the whole.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae import kernels
from expander_sae.dictionaries.base import NO_GROUPS, Dictionary, flatten
from expander_sae.dictionaries.codes import Codes
from expander_sae.dictionaries.expander import ExpanderDictionary
from expander_sae.distribution import Group
from expander_sae.errors import ExpanderError
from expander_sae.kernels.greedy import Rules
from expander_sae.supports import Support


def shards_of(dictionary: Dictionary) -> Group:
    """The processes that hold the dictionary together; one for a dictionary that is in one piece."""
    return dictionary.group if isinstance(dictionary, Shard) else Group()


class Shard(ExpanderDictionary):
    """The columns that this process holds; `select`, `among` and `synthesize` are of the whole and called by all.

    `n` columns are here. What else an expander dictionary can do is about them alone, and there is no pursuit, which
    would look at all columns again after every step.
    """

    def __init__(self, support: Support, values: Float[Tensor, "n d"], group: Group) -> None:
        super().__init__(support, values)
        self.group = group
        self.first = group.rank * self.n
        """The number of the first column here."""

    @property
    def coded(self) -> int:
        return self.group.world * self.n

    @property
    def learned_values(self) -> int:
        return self.group.world * super().learned_values

    def select(
        self, x: Float[Tensor, "*batch m"], k: int, bias: Float[Tensor, " n"] | None = None, signed: bool = False
    ) -> Codes:
        if k > self.coded:
            raise ExpanderError(f"k must be between 1 and the number of features, {self.coded}, not {k}.")
        here = super().select(flatten(x, self.m), min(k, self.n), bias, signed)
        return self._best(here.values, here.indices, k, signed).reshape(*x.shape[:-1])

    def among(self, features: Int[Tensor, " f"], x: Float[Tensor, "tokens m"], k: int) -> Codes:
        """The k largest correlations among some features of every process, numbered as here; all of them if there are
        fewer, then entries of value zero."""
        room, held = min(k, self.n), min(k, len(features))
        values = x.new_full((len(x), room), -torch.inf)
        indices = torch.zeros(len(x), room, dtype=torch.int64, device=x.device)
        if held:
            chosen = torch.nn.functional.embedding(features, self.values)
            found, places = kernels.select(x, chosen, self.rows[features], held)
            values = torch.cat([found, values[:, held:]], dim=1)
            indices = torch.cat([features[places], indices[:, held:]], dim=1)
        best = self._best(values, indices, k, False)
        return Codes(torch.where(best.values > -torch.inf, best.values, 0.0), best.indices, best.n)

    def _best(self, values: Float[Tensor, "batch c"], indices: Int[Tensor, "batch c"], k: int, signed: bool) -> Codes:
        """The k best candidates of all processes, each of whose lists is in order; equal ones by lowest feature."""
        values = self.group.side_by_side(values)
        features = self.group.side_by_side((indices + self.first).to(torch.int32))
        sizes = values.detach().abs() if signed else values.detach()
        order = sizes.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return Codes(values.gather(1, order), features.gather(1, order).long(), self.coded)

    def make_groups(self, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None) -> None:
        raise ExpanderError(NO_GROUPS)

    def synthesize(self, codes: Codes, onto: Float[Tensor, "*batch m"] | None = None) -> Float[Tensor, "*batch m"]:
        if onto is not None and self.group.rank > 0:
            onto = torch.zeros_like(onto)  # it is to be in the sum once
        return self.group.summed(super().synthesize(codes.within(self.first, self.n), onto))

    def _pursue(self, x: Float[Tensor, "batch m"], rules: Rules, orthogonal: bool) -> tuple[Tensor, Tensor]:
        raise ExpanderError("A pursuit needs all columns in one process; use a one-shot coder, or no feature shards.")

    def assembled(self, recipe: Support | None) -> ExpanderDictionary | None:
        """The whole dictionary in the memory of the first process, None in others; a recipe made its rows, or none."""
        everything = self.group.collected(self.values.detach())
        rows = self.group.collected(self.rows) if recipe is None else None
        if everything is None:
            return None
        support = recipe if rows is None else Support.from_rows(rows, self.m)
        assert support is not None
        return ExpanderDictionary(support, everything)
