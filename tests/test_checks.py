"""What fields may hold is said by their annotations, and checked in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expander_sae.checks import (
    Count,
    CountOrNone,
    Decay,
    Positive,
    Seed,
    Share,
    SomeShare,
    Weight,
    check_all_fields,
    check_fields,
)
from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class Asked:
    count: Count = 1
    maybe: Count | None = None
    several: tuple[Count, ...] | None = None
    left_out: CountOrNone = 0
    seed: Seed = 0
    share: Share = 0.5
    some: SomeShare = 0.5
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    rate: Positive = 0.1
    weight: Weight = 0.0
    whole: int = 0
    real: float = 0.0
    word: str = "a"
    flag: bool = True


@dataclass(frozen=True)
class Around:
    inner: Asked


GOOD = {
    "count": [1, 2**63 - 1], "maybe": [None, 1], "several": [None, (), (1, 2)], "left_out": [0, 5],
    "seed": [0, 2**32 - 1], "share": [0, 1, 0.0, 1.0], "some": [1e-300, 1], "betas": [(0, 0.999)], "rate": [1e-9, 1e30],
    "weight": [0, 1e300], "whole": [-(2**63) + 1, 2**63 - 1], "real": [-1e308], "word": ["-1", "nan"], "flag": [False],
}  # fmt: skip
BAD = {
    "count": [0, -1, 2**63], "maybe": [0], "several": [(1, 0)], "left_out": [-1], "seed": [-1, 2**32],
    "share": [-1e-9, 1.1, math.nan, math.inf], "some": [0.0, 2], "betas": [(0.9, 1.0), (-0.1, 0.9), (math.nan, 0.5)],
    "rate": [0.0, math.inf], "weight": [-1.0, math.inf], "whole": [2**63, -(10**400)],
    "real": [math.nan, math.inf, -math.inf],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in GOOD for value in GOOD[name]])
def test_what_is_allowed(name: str, value: object) -> None:
    check_fields(Asked(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_what_is_not(name: str, value: object) -> None:
    for asked in (Asked(**{name: value}), Around(Asked(**{name: value}))):  # type: ignore[arg-type]
        with pytest.raises(ExpanderError, match=f"^{name} must ") as refused:
            check_all_fields(asked)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 200


@given(st.one_of(st.integers(), st.floats()))
def test_a_number_is_refused_exactly_where_its_range_ends(number: float) -> None:
    ranges = {"share": 0 <= number <= 1}
    if isinstance(number, int):
        ranges |= {"count": 1 <= number < 2**63, "seed": 0 <= number < 2**32}
    for name, inside in ranges.items():
        if inside:
            check_fields(Asked(**{name: number}))  # type: ignore[arg-type]
        else:
            with pytest.raises(ExpanderError):
                check_fields(Asked(**{name: number}))  # type: ignore[arg-type]
