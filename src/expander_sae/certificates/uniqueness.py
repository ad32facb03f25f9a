"""Statements about which codes are unique, from the support alone: whatever the values are, as long as none is zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from expander_sae.certificates.first_moment import Draw, largest_certified, log_bounds
from expander_sae.certificates.local import INDEPENDENT
from expander_sae.certificates.mask import Mask
from expander_sae.certificates.overlaps import Overlaps
from expander_sae.certificates.statements import Statement, Status
from expander_sae.certificates.subject import SparseColumns
from expander_sae.certificates.words import count, power, up_to

BY_OVERLAPS = "unique codes, by overlaps (theorem 2)"
BY_DRAW = "unique codes, by the draw (theorem 6)"
ALMOST_ALL = "unique codes for almost all values (theorem 3)"
STOPPING_SET = "smallest stopping set found (theorem 2)"
VALUES = "values that count"
WITHOUT_SMALL = ", without values near zero"


def values_that_count(columns: SparseColumns, tau: float) -> Statement:
    """How many values are zero or near it."""
    present, near = columns.mask.degrees, columns.effective.degrees
    total, absent = present.size * columns.d, present.size - columns.used.size
    zero, dropped = total - int(present.sum()), int((present - near).sum())
    histogram = {str(degree): int((near == degree).sum()) for degree in range(columns.d + 1) if (near == degree).any()}
    sentence = (
        f"{zero / total:.2%} of the values are zero and {dropped / total:.2%} more are at most {tau:g} times the norm "
        f"of their column; {count(absent, 'column')} of {present.size:,} are zero, which every statement leaves out."
    )
    numbers = {
        "values": total, "zero": zero, "near_zero": dropped, "zero_columns": absent,
        "columns_by_values_that_count": histogram,
    }  # fmt: skip
    return Statement(VALUES, "measured", sentence, numbers)


def by_overlaps(overlaps: Overlaps, suffix: str = "") -> Statement:
    """No small set of features shares enough to be a stopping set."""
    k, numbers = overlaps.peelable_k, {"k": overlaps.peelable_k, "no_stopping_set_up_to": overlaps.peelable_set}
    if k == 0:
        sentence = "Some feature has each of its coordinates in common with one other, so overlaps prove nothing."
        return Statement(BY_OVERLAPS + suffix, "open", sentence, numbers)
    sentence = (
        f"For all values that are not zero, {up_to(k)} is unique: no feature has all its coordinates in common with "
        f"{count(overlaps.peelable_set - 1, 'other')} together."
    )
    return Statement(BY_OVERLAPS + suffix, "proved", sentence, numbers)


def almost_all(overlaps: Overlaps, d: int, suffix: str = "") -> Statement:
    """Sets of features touch as many coordinates as they have members."""
    k, largest = overlaps.generic_k, overlaps.largest
    by_largest = None if suffix or largest == 0 else int(1 + d * (d - 1) / largest) // 2
    numbers = {"k": k, "largest_overlap": largest, "k_from_the_largest_overlap_alone": by_largest}
    if k == 0:
        sentence = f"Features share up to {count(largest, 'coordinate')}, too many for overlaps to prove anything."
        return Statement(ALMOST_ALL + suffix, "open", sentence, numbers)
    sentence = (
        f"For almost all values on this support, {up_to(k)} is unique: features share at most "
        f"{count(largest, 'coordinate')}, so any {2 * k} of them touch as many coordinates or more."
    )
    return Statement(ALMOST_ALL + suffix, "proved", sentence, numbers)


def almost_all_dense(m: int, n: int) -> Statement:
    """Any m dense columns are independent for almost all values."""
    k = min(m, n) // 2
    sentence = f"For almost all values, {up_to(k)} is unique: any {2 * k} columns of width {m} are then independent."
    return Statement(ALMOST_ALL, "proved" if k else "open", sentence, {"k": k})


def stopping_set(columns: SparseColumns, found: Int64[NDArray, " features"], restarts: int) -> Statement:
    """The smallest stopping set that a search found, and what these very values make of it."""
    if found.size == 0:
        sentence = f"Searching {count(restarts, 'time')} found no stopping set."
        return Statement(STOPPING_SET, "open", sentence, {"features": []})
    rows, matrix = columns.mask.rows[found], np.zeros((columns.m, found.size))
    for index, (line, values) in enumerate(zip(rows, columns.units[found], strict=True)):
        matrix[line[line >= 0], index] = values[line >= 0]
    smallest = float(np.linalg.svd(matrix, compute_uv=False)[-1]) if found.size <= columns.m else 0.0
    k, independent = math.ceil(found.size / 2), smallest > INDEPENDENT
    verdict = (
        f"the values that are there do tell them apart (smallest singular value {smallest:.3g})"
        if independent
        else "and the values that are there are such: two codes on these features give the same activation"
    )
    sentence = (
        f"{found.size} features form a stopping set, so it is false that codes of {k} features are unique for all "
        f"values that are not zero; {verdict}."
    )
    numbers = {"features": found.tolist(), "size": found.size, "smallest_singular_value": smallest, "k": k}
    return Statement(STOPPING_SET, "refuted", sentence, numbers)


def by_draw(
    columns: SparseColumns, mask: Mask, ks: Sequence[int], delta: float, found: int, suffix: str = ""
) -> Statement:
    """How unlikely a draw of such a support is that has a small stopping set; `found` is the size of one, or 0."""
    name, draw = BY_DRAW + suffix, Draw.of(columns.support)
    if draw is None:
        kind = "chosen by training or given" if columns.support.is_stored else f"{columns.support.construction!r}"
        sentence = f"It holds for uniform and partitioned rows as they were drawn, and these rows are {kind}."
        return Statement(name, "not applicable", sentence, {})
    lost = np.pad(mask.lost, (0, columns.n), mode="edge")[: draw.largest_set]
    certified = largest_certified(draw, delta, lost)
    sizes = {k: min(2 * k, draw.n) for k in ks if min(2 * k, draw.n) <= draw.largest_set}
    bounds = log_bounds(draw, max(sizes.values()), lost[: max(sizes.values())]) if sizes else np.empty(0)
    logs = {k: min(0.0, float(bounds[size - 1]) / math.log(10)) for k, size in sizes.items()}
    numbers: dict[str, Any] = {
        "k": certified, "delta": delta, "most_values_lost_by_one_column": int(lost[0]),
        "log10_share_of_draws": {str(k): log10 for k, log10 in logs.items()},
    }  # fmt: skip
    if found and found <= 2 * certified:
        sentence = f"This draw has a stopping set of {found} features, which at most {delta:g} of all draws have."
        return Statement(name, "refuted", sentence, numbers)
    shares = ", ".join(f"{power(log10)} for k = {k}" for k, log10 in logs.items())
    status: Status = "proved" if certified else "open"
    sentence = _sentence_of_draw(certified, delta, shares, int(lost[0]))
    return Statement(name, status, sentence, numbers)


def _sentence_of_draw(certified: int, delta: float, shares: str, lost: int) -> str:
    asked = f" At most this share of draws fails: {shares}." if shares else ""
    without = f", whichever values (up to {lost} of a column) are left out" if lost else ""
    if certified == 0:
        return f"No k has a share of failing draws that is proved to be {delta:g} or less{without}.{asked}"
    return (
        f"All but a share of {delta:g} of the draws of such rows make {up_to(certified)} unique, for all values that "
        f"are not zero{without}. It is about the draw: the seed must not have been chosen by its result.{asked}"
    )
