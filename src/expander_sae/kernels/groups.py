"""Features in groups of alike columns, so that a token need not look at all of them.

A token looks at the features that can score highest with any token, and at the groups whose mean column it scores
highest with. Scores are exact; where a token looks is a guess, whose recall must be measured. Columns are alike if
their scores are, so entries count by the size that their coordinates have in tokens. Compiled for CPUs only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels.inputs import check_finite, working_dtype
from expander_sae.kernels.select import select
from expander_sae.kernels.threads import over_tiles

if TYPE_CHECKING:
    from expander_sae.kernels.cpu.columns import Columns

EVERYONES = 64
"""One feature in so many, those that can score highest, is looked at by every token."""
FEWEST = 256
"""At least so many are."""
REACH = 4.0
"""How many of its standard deviations a score can be high."""
STRATUM = 4
"""Groups are made among features of like reach: the first everyone's and this many times as many, and so on."""
COLUMNS_PER_CENTRE = 32
"""Columns that the centres of groups are found with, for each of them."""
ROUNDS = 4
"""Rounds of k-means."""
MEAN_ENTRIES = 16
"""Entries of a mean column, its largest, that stand for all of it."""
ABOVE_MEAN = 3.0
"""How many standard deviations around it a group's scores count above that of its mean column."""
RANKED = 3
"""Groups that are ranked for a token, in multiples of its share of all, since many are smaller than others."""
CHUNK = 1 << 18
"""Columns that are put in groups at a time."""
LAID_OUT = 1 << 14
"""Columns that a thread lays out at a time."""
PIECE = 1024
"""Tokens that a thread takes at a time: several for most groups, which are read once for all of them."""


class Groups(NamedTuple):
    """The features of a dictionary, group after group; every token looks at the first group."""

    order: Int[Tensor, " n"]
    """Features, ascending in every group."""
    edges: Int[Tensor, " groups+1"]
    """Where every group starts in the order, and n at the end."""
    values: Float[Tensor, "others e"]
    """The largest entries of the mean column of every group but the first."""
    rows: Int[Tensor, "others e"]
    """Their coordinates."""
    lead: Float[Tensor, " others"]
    """What groups have ahead of the score of their mean column when they are ranked."""

    @property
    def everyones(self) -> int:
        """How many features all tokens look at."""
        return int(self.edges[1])


def number_of_groups(n: int) -> int:
    """About how many groups n features are put in: ranking them costs less than looking at a few."""
    return max(1, round(math.sqrt(n) / 2))


def size_of_first_group(n: int) -> int:
    """How many of n features every token looks at, and so the most that can be chosen for one."""
    return min(n, max(n // EVERYONES, FEWEST))


@torch.no_grad()
def group_columns(
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    bias: Float[Tensor, " n"] | None,
    spread: Float[Tensor, " m"],
    seed: int = 0,
) -> Groups:
    """Put columns in groups, for tokens whose coordinates have the sizes `spread` (roots of their mean squares)."""
    n, generator = len(values), torch.Generator().manual_seed(seed)
    bias = torch.zeros(n) if bias is None else bias.detach().float()
    columns = _Scaled(values.detach().float(), rows, spread.detach().float())
    sizes = torch.cat([columns.of(part).square().sum(dim=1).sqrt() for part in torch.split(torch.arange(n), CHUNK)])
    by_reach = (bias + REACH * sizes).argsort(descending=True, stable=True)
    edge = everyones = size_of_first_group(n)
    order, counts = [by_reach[:edge].sort().values], [torch.tensor([edge])]
    strata = max(1, math.ceil(math.log(n / everyones, STRATUM)))
    while edge < n:
        members = by_reach[edge : STRATUM * edge].sort().values
        edge += len(members)
        groups = max(1, min(number_of_groups(n) // strata, len(members) // COLUMNS_PER_CENTRE))
        labels = columns.labels(members, groups, generator)
        order.append(members[labels.argsort(stable=True)])
        found = torch.bincount(labels)
        counts.append(found[found > 0])
    edges = torch.nn.functional.pad(torch.cat(counts).cumsum(0), (1, 0))
    return Groups(torch.cat(order), edges, *columns.means(torch.cat(order)[everyones:], edges[1:] - everyones, bias))


class _Scaled:
    """Columns whose entries count by the size of their coordinates."""

    def __init__(self, values: Float[Tensor, "n d"], rows: Int[Tensor, "n d"], spread: Float[Tensor, " m"]) -> None:
        self.values, self.rows, self.spread = values, rows, spread

    def of(self, features: Int[Tensor, " f"]) -> Float[Tensor, "f d"]:
        """The scaled values of some columns, zero where there is no row."""
        from expander_sae.kernels.cpu.groups import scale

        scaled = torch.empty(len(features), self.values.shape[1])
        scale(self.values.numpy(), self.rows.numpy(), self.spread.numpy(), features.numpy(), scaled.numpy())
        return scaled

    def nearest(self, features: Int[Tensor, " f"], centres: Float[Tensor, "groups m"]) -> Int[Tensor, " f"]:
        """Which of the centres has the largest inner product with each of some columns."""
        from expander_sae.kernels.cpu.columns import columns_of
        from expander_sae.kernels.cpu.groups import CENTRES, Best, nearest
        from expander_sae.kernels.cpu.tiles import aligned, fill_tile

        columns = columns_of(self.of(features), self.rows[features])
        bias = np.zeros(len(features), np.float32)
        lanes, count = np.ascontiguousarray(centres.numpy()), len(centres)
        tiles = [aligned((centres.shape[1], CENTRES), np.float32) for _ in range(0, count, CENTRES)]
        for number, tile in enumerate(tiles):
            fill_tile(lanes, CENTRES * number, min(CENTRES * (number + 1), count), tile)
        best = Best(np.full((len(features), 1), -np.inf, np.float32), np.zeros((len(features), 1), np.int64))

        def work(start: int, stop: int) -> None:
            place = aligned((CENTRES,), np.float32), aligned((CENTRES,), np.float32)
            for number, tile in enumerate(tiles):
                first = CENTRES * number
                found = Best(best.ranking[start:stop], best.features[start:stop])
                nearest(columns, bias, tile, min(CENTRES, count - first), first, start, found, *place)

        over_tiles(work, len(features), PIECE)
        return torch.from_numpy(best.features[:, 0])

    def labels(self, features: Int[Tensor, " f"], groups: int, generator: torch.Generator) -> Int[Tensor, " f"]:
        """A group for each of some columns: that of the nearest centre, by k-means on the directions of a sample."""
        from expander_sae.kernels.cpu.columns import columns_of  # Numba takes a while to import
        from expander_sae.kernels.cpu.groups import add_columns

        sample = features[torch.randperm(len(features), generator=generator)[: COLUMNS_PER_CENTRE * groups]]
        scaled = self.of(sample)
        columns = columns_of(scaled, self.rows[sample])
        weights = 1 / torch.linalg.vector_norm(scaled, dim=1).clamp_min(torch.finfo(scaled.dtype).tiny)
        chosen = torch.arange(len(sample)) % groups  # at first each centre is one column
        weights_at_first = weights * (torch.arange(len(sample)) < groups)
        centres = torch.zeros(groups, len(self.spread))
        for weight in (weights_at_first, *[weights] * ROUNDS):
            sums = torch.zeros_like(centres)
            add_columns(columns, chosen.numpy(), weight.numpy(), sums.numpy())
            norms = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
            centres = torch.where(norms > 0, sums / norms, centres)
            chosen = self.nearest(sample, centres)
        return torch.cat([self.nearest(part, centres) for part in torch.split(features, CHUNK)])

    def means(
        self, order: Int[Tensor, " f"], edges: Int[Tensor, " groups+1"], bias: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "groups e"], Int[Tensor, "groups e"], Float[Tensor, " groups"]]:
        """The largest entries of the groups' mean columns, their rows, and how far the groups are ahead of them."""
        from expander_sae.kernels.cpu.columns import columns_of
        from expander_sae.kernels.cpu.groups import add_columns

        counts = edges.diff()
        label = torch.repeat_interleave(torch.arange(len(counts)), counts)
        means, squares = torch.zeros(len(counts), len(self.spread)), torch.zeros(len(counts))
        for part in torch.split(torch.arange(len(order)), CHUNK):
            scaled, some = self.of(order[part]), label[part]
            columns = columns_of(scaled, self.rows[order[part]])
            add_columns(columns, some.numpy(), (1 / counts.float())[some].numpy(), means.numpy())
            squares.index_add_(0, some, scaled.square().sum(dim=1) / counts[some])
        bias = torch.zeros(len(counts)).index_add_(0, label, bias[order] / counts[label])
        around = (squares - means.square().sum(dim=1)).clamp_min(0).sqrt()
        rows = means.abs().topk(min(MEAN_ENTRIES, len(self.spread)), dim=1).indices.sort(dim=1).values
        size = self.spread[rows].clamp_min(torch.finfo(torch.float32).tiny)
        return means.gather(1, rows) / size, rows.to(torch.int32), bias + ABOVE_MEAN * around


class GroupedColumns:
    """A dictionary's columns laid out group after group; the values are laid out anew when they have changed."""

    def __init__(self, groups: Groups, rows: Int[Tensor, "n d"]) -> None:
        self.groups = groups
        self._rows, self._places = rows, np.empty(len(rows), np.int32)
        self._places[groups.order.numpy()] = np.arange(len(rows), dtype=np.int32)
        self._columns: Columns | None = None
        self._of: Tensor | None = None
        self._held = self._current = False

    def moved(self, rows: Int[Tensor, "n d"]) -> None:
        """Columns are at these coordinates from now on, in the groups that they were in."""
        self._rows, self._columns = rows, None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, values stay as they are: they are laid out once, and no copy is kept to see whether they changed."""
        self._of, self._held, self._current = None, True, False
        try:
            yield
        finally:
            self._held = self._current = False

    @torch.no_grad()
    def select(
        self,
        x: Float[Tensor, "batch m"],
        values: Float[Tensor, "n d"],
        bias: Float[Tensor, " n"] | None,
        k: int,
        look: float,
        signed: bool = False,
        allowed: Bool[Tensor, " n"] | None = None,
    ) -> Int[Tensor, "batch k"]:
        """The features that `select` would choose if there were only those that a token looks at, in its order.

        These are at most the share `look` of all, or else the first group. Where fewer than k of them are allowed, the
        last are n.
        """
        from expander_sae.kernels.cpu.groups import Best, LaidOut, make_workplace, visits_of
        from expander_sae.kernels.cpu.groups import look as look_at

        check_finite("x", x)
        if not 1 <= k <= self.groups.everyones:
            raise ExpanderError(
                f"Where tokens look at a share of the features, k must be between 1 and the number of those that all "
                f"look at, {self.groups.everyones}, not {k}."
            )
        dtype, edges = working_dtype(x, values, bias), self.groups.edges.numpy()
        if bias is not None:
            check_finite("bias", bias)
        laid_out = LaidOut(
            self._columns_now(values.detach().to(dtype)),
            np.zeros(len(values), _numpy(dtype)) if bias is None else self._put(bias.detach().to(dtype)),
            self.groups.order.numpy(),
            np.ones(len(values), np.bool_) if allowed is None else self._put(allowed),
            edges,
        )
        tokens = x.to(dtype).contiguous().numpy()
        ranked, most = self._ranked(x, look).numpy(), int(look * len(values))
        best = Best(np.empty((len(x), k), tokens.dtype), np.empty((len(x), k), np.int64))

        def work(start: int, stop: int) -> None:
            place = make_workplace(tokens)
            for first in range(start, stop, PIECE):
                piece = slice(first, min(first + PIECE, stop))
                visits = visits_of(ranked[piece], edges, most)
                found = Best(best.ranking[piece], best.features[piece])
                look_at(tokens[piece], laid_out, visits, signed, found, place)

        over_tiles(work, len(x), PIECE)
        return torch.from_numpy(best.features)

    def _columns_now(self, values: Float[Tensor, "n d"]) -> Columns:
        """The columns as they are now, in the order of the groups and the precision of these values."""
        from expander_sae.kernels.cpu.columns import Columns, entries_of
        from expander_sae.kernels.cpu.groups import lay_out

        columns = self._columns
        if columns is None or columns.values.dtype != _numpy(values.dtype):
            rows, starts = entries_of(self._rows.index_select(0, self.groups.order))
            columns = self._columns = Columns(np.empty(rows.size, _numpy(values.dtype)), rows, starts)
        elif self._current if self._held else _same(self._of, values):
            return columns
        of, places, finite = values.contiguous().numpy(), self._places, list[bool]()
        over_tiles(lambda start, stop: finite.append(lay_out(of, places, start, stop, columns)), len(of), LAID_OUT)
        if not all(finite):
            self._of, self._current = None, False
            check_finite("values", values)
        # Copies are compared because versions do not count what changes a parameter through its data.
        self._of, self._current = None if self._held else values.clone(), self._held
        return columns

    def _put(self, numbers: Float[Tensor, " n"] | Bool[Tensor, " n"]) -> NDArray[Any]:
        """A number of every feature, in the order of the groups."""
        from expander_sae.kernels.cpu.groups import put

        laid_out = np.empty_like(numbers.numpy())
        put(numbers.contiguous().numpy(), self._places, laid_out)
        return laid_out

    def _ranked(self, x: Float[Tensor, "batch m"], look: float) -> Int[Tensor, "batch r"]:
        """The groups that tokens score highest with, the first not counted."""
        groups, others = self.groups, len(self.groups.lead)
        if others == 0 or len(x) == 0:
            return torch.zeros(len(x), 0, dtype=torch.int64)
        count = min(others, math.ceil(RANKED * look * others))
        return select(x.float(), groups.values, groups.rows, count, groups.lead)[1]


def _numpy(dtype: torch.dtype) -> type[np.floating[Any]]:
    return np.float64 if dtype == torch.float64 else np.float32


def _same(those: Tensor | None, these: Tensor) -> bool:
    """Whether all numbers are equal and of one precision."""
    return those is not None and those.dtype == these.dtype and torch.equal(those, these)
