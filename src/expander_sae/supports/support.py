"""Where the nonzeros of a dictionary are: which d of the m coordinates each feature touches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Int, Int32, Int64
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.means import check_memory
from expander_sae.supports.construction import NO_ROW, Construction, Request, SupportError, Value, integer
from expander_sae.supports.registry import constructions, find

IntegerArray = Tensor | NDArray[Any] | Sequence[Any] | int

_LARGEST_SIZE = 2**31 - 1
_CHUNK = 1 << 19
"""Values computed at a time: small enough for the cache, and rows never depend on it."""
_RECIPE_KEYS = ("construction", "m", "n", "d", "seed", "parameters")


@dataclass(frozen=True, eq=False, repr=False)
class Support:
    """The coordinates of every feature; immutable, made by `make`, `from_recipe` or `from_rows`."""

    construction: str
    """The name of the recipe, or what the stored rows are called."""
    _request: Request
    _stored_rows: Int32[Tensor, "n d"] | None = None

    @classmethod
    def make(cls, construction: str, *, m: int, n: int, d: int, seed: int = 0, **parameters: object) -> Support:
        """The support that a construction makes; the same on every machine and in every release."""
        maker = find(construction)
        _check_sizes(m, n, d)
        seed = integer("seed", seed)
        if not 0 <= seed < 2**64:
            raise SupportError(f"seed must be between 0 and 2**64 - 1, not {seed}.")
        request = Request(int(m), int(n), int(d), seed, maker.resolve(parameters))
        maker.check(request)
        return cls(construction, request)

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> Support:
        """The support that a recipe describes."""
        if set(recipe) != set(_RECIPE_KEYS):
            raise SupportError(f"A recipe has the keys {', '.join(_RECIPE_KEYS)}, not {', '.join(map(str, recipe))}.")
        if not isinstance(recipe["parameters"], Mapping):
            raise SupportError(f"A recipe's parameters must be a mapping, not {recipe['parameters']!r}.")
        arguments = {key: recipe[key] for key in ("m", "n", "d", "seed")}
        return cls.make(recipe["construction"], **arguments, **recipe["parameters"])

    @classmethod
    def from_rows(cls, rows: IntegerArray, m: int, construction: str = "learned") -> Support:
        """A support with these rows [n, d], which are copied and sorted within each feature.

        A feature may touch fewer than d coordinates: its other rows are -1, here wherever, in `rows` at the end.
        """
        if construction in constructions():
            raise SupportError(f"Stored rows cannot be called {construction!r}, the name of a construction.")
        array = _integers("rows", rows)
        if array.ndim != 2:
            raise SupportError(f"rows must have the shape [n, d], not {list(array.shape)}.")
        n, d = array.shape
        _check_sizes(m, n, d)
        if array.min() < NO_ROW or array.max() >= m:
            raise SupportError(f"rows must lie between 0 and m - 1 = {m - 1}, not {array.min()} to {array.max()}.")
        settled, lines = np.empty((n, d), np.int32), max(1, _CHUNK // d)
        for start in range(0, n, lines):
            settled[start : start + lines] = _settled(array[start : start + lines], m, start)
        return cls(construction, Request(int(m), n, d, 0), torch.from_numpy(settled))

    @property
    def m(self) -> int:
        """Width: the number of coordinates."""
        return self._request.m

    @property
    def n(self) -> int:
        """Number of features."""
        return self._request.n

    @property
    def d(self) -> int:
        """Degree: coordinates per feature, or the most that one may touch."""
        return self._request.d

    @property
    def is_even(self) -> bool:
        """Whether every feature touches d coordinates."""
        return self.entries == self.n * self.d

    @cached_property
    def degrees(self) -> Int64[Tensor, " n"]:
        """How many coordinates each feature touches."""
        if not self.is_stored:
            return torch.full((self.n,), self.d)
        return (self.rows >= 0).sum(dim=1)

    @cached_property
    def entries(self) -> int:
        """How many coordinates all features touch together."""
        return int(self.degrees.sum())

    @property
    def seed(self) -> int:
        """The 64-bit seed of the construction, 0 for stored rows."""
        return self._request.seed

    @property
    def parameters(self) -> dict[str, Value]:
        """What the construction was told besides sizes and seed, defaults filled in."""
        return dict(self._request.parameters)

    @property
    def is_stored(self) -> bool:
        """Whether the rows were given, so that a file has to hold them."""
        return self._stored_rows is not None

    @property
    def recipe(self) -> dict[str, Any]:
        """What `from_recipe` takes, ready for JSON."""
        sizes = {"m": self.m, "n": self.n, "d": self.d, "seed": self.seed}
        return {"construction": self.construction, **sizes, "parameters": self.parameters}

    @cached_property
    def rows(self) -> Int32[Tensor, "n d"]:
        """The coordinates of every feature, ascending, then -1 if there are fewer than d; not to be written to."""
        if self._stored_rows is not None:
            return self._stored_rows
        check_memory(
            f"A support of {self.n:,} features", 8.0 * self.n * self.d, instead="give fewer features or values"
        )
        maker = find(self.construction)
        if maker.all_rows is not None:
            rows = maker.all_rows(self._request).astype(np.int32)
            rows.sort(axis=1)
        else:
            rows = _computed_alone(maker, self._request, np.arange(self.n, dtype=np.uint64))
        return torch.from_numpy(rows)

    def column(self, feature: int) -> Int32[Tensor, "d"]:
        """The coordinates of one feature."""
        rows = self.columns(integer("feature", feature))
        return rows[rows >= 0]

    def columns(self, features: IntegerArray) -> Int32[Tensor, "*features d"]:
        """The coordinates of any features as in `rows`, on their device; most constructions compute only these."""
        array = _integer_array("features", features)
        if array.size and (array.min() < 0 or array.max() >= self.n):
            raise SupportError(f"Features are numbered 0 to {self.n - 1}, not {array.min()} to {array.max()}.")
        flat = array.reshape(-1)
        if "rows" not in self.__dict__ and not self.is_stored and find(self.construction).procedural:
            columns = _computed_alone(find(self.construction), self._request, flat.astype(np.uint64))
        else:
            columns = self.rows.numpy()[flat]
        result = torch.from_numpy(columns.reshape(*array.shape, self.d))
        return result.to(features.device) if isinstance(features, Tensor) else result

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the rows, row-major, as little-endian uint16 (int32 if uneven or m > 65536)."""
        stored_type = "<u2" if self.m <= 65536 and self.is_even else "<i4"
        digest = hashlib.sha256()
        lines = max(1, _CHUNK // self.d)
        for start in range(0, self.n, lines):
            digest.update(self.rows[start : start + lines].numpy().astype(stored_type).tobytes())
        return digest.hexdigest()

    @cached_property
    def row_lists(self) -> RowLists:
        """The transpose: for every coordinate the features that touch it."""
        return build_row_lists(self.rows, self.m)

    def __eq__(self, other: object) -> bool:
        """Whether sizes and rows are the same, however they came about."""
        if not isinstance(other, Support):
            return NotImplemented
        if (self.m, self.n, self.d) != (other.m, other.n, other.d):
            return False
        if not self.is_stored and not other.is_stored and self.recipe == other.recipe:
            return True
        return bool(torch.equal(self.rows, other.rows))

    def __hash__(self) -> int:
        return hash((self.m, self.n, self.d))

    def __repr__(self) -> str:
        parameters = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        seed = "" if self.is_stored else f", seed={self.seed}"
        d = f"{self.d}" if self.is_even else f"1..{self.d}, entries={self.entries}"
        return f"Support({self.construction!r}, m={self.m}, n={self.n}, d={d}{seed}{parameters})"

    def __copy__(self) -> Support:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Support:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A recipe travels instead of the rows it can make."""
        if self._stored_rows is not None:
            return Support.from_rows, (self._stored_rows.numpy(), self.m, self.construction)
        return Support.from_recipe, (self.recipe,)


def _settled(rows: NDArray[Any], m: int, first: int) -> NDArray[np.int64]:
    """The rows of features from `first` on, ascending and then -1; refuses none at all and the same one twice."""
    rows = rows.astype(np.int64)
    rows = np.sort(np.where(rows == NO_ROW, m, rows), axis=1)
    if (rows[:, 0] == m).any():
        raise SupportError(f"Feature {first + int((rows[:, 0] == m).argmax())} touches no coordinate; it needs one.")
    repeated = ((rows[:, 1:] == rows[:, :-1]) & (rows[:, 1:] < m)).any(axis=1)
    if repeated.any():
        feature = first + int(repeated.argmax())
        raise SupportError(f"Feature {feature} touches a coordinate twice; its rows must be distinct.")
    return np.where(rows == m, NO_ROW, rows)


def _computed_alone(maker: Construction, request: Request, features: NDArray[np.uint64]) -> NDArray[np.int32]:
    """The sorted rows of these features, a chunk at a time."""
    assert maker.rows_of is not None
    rows = np.empty((features.size, request.d), dtype=np.int32)
    lines = max(1, _CHUNK // request.d)
    for start in range(0, features.size, lines):
        chunk = rows[start : start + lines]
        chunk[:] = maker.rows_of(request, features[start : start + lines])
        chunk.sort(axis=1)
    return rows


def _check_sizes(m: int, n: int, d: int) -> None:
    for name, value in (("m", m), ("n", n), ("d", d)):
        if not 1 <= integer(name, value) <= _LARGEST_SIZE:
            raise SupportError(f"{name} must be between 1 and 2**31 - 1, not {value}.")
    if d > m:
        raise SupportError(f"A feature cannot touch d = {d} of m = {m} coordinates; d must be at most m.")


def _integer_array(what: str, values: IntegerArray) -> NDArray[np.int64]:
    """The values as an int64 array; anything but integers is refused."""
    return _integers(what, values).astype(np.int64)


def _integers(what: str, values: IntegerArray) -> NDArray[Any]:
    """The values as an array, not copied if they are one; anything but integers is refused."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.size == 0:
        return np.empty(array.shape, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise SupportError(f"{what} must be integers, not {array.dtype}.")
    return array


@dataclass(frozen=True)
class RowLists:
    """The features of coordinate i are `features[starts[i]:starts[i + 1]]`, ascending, each at its `slots` entry."""

    starts: Int[Tensor, "m_plus_1"]
    """int64, offsets into the other two."""
    features: Int[Tensor, " entries"]
    """int32, feature numbers."""
    slots: Int[Tensor, " entries"]
    """int32, `rows[feature, slot]` is the coordinate."""


def build_row_lists(rows: Int[Tensor, "n d"], m: int) -> RowLists:
    """Row lists by one counting sort, O(n d); rows of -1 are in none of them."""
    starts, features, slots = _counting_sort(rows.numpy(), m)
    return RowLists(torch.from_numpy(starts), torch.from_numpy(features), torch.from_numpy(slots))


@numba.njit(cache=True)
def _counting_sort(rows: NDArray[np.int32], m: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    n, d = rows.shape
    starts = np.zeros(m + 1, dtype=np.int64)
    for feature in range(n):
        for slot in range(d):
            if rows[feature, slot] >= 0:
                starts[rows[feature, slot] + 1] += 1
    for coordinate in range(m):
        starts[coordinate + 1] += starts[coordinate]
    nexts = starts[:-1].copy()
    features = np.empty(starts[m], dtype=np.int32)
    slots = np.empty(starts[m], dtype=np.int32)
    for feature in range(n):
        for slot in range(d):
            coordinate = rows[feature, slot]
            if coordinate >= 0:
                position = nexts[coordinate]
                nexts[coordinate] = position + 1
                features[position] = feature
                slots[position] = slot
    return starts, features, slots
