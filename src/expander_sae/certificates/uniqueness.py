"""Statements about which codes are unique, from the support alone: whatever the values are, as long as none is zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from expander_sae.certificates.first_moment import Draw, largest_certified, log_bounds
from expander_sae.certificates.local import INDEPENDENT
from expander_sae.certificates.matrix import Mask, SparseMatrix
from expander_sae.certificates.overlaps import Overlaps
from expander_sae.certificates.statements import Statement, Status, count, power, those_of, up_to

BY_OVERLAPS = "unique codes, by overlaps (theorem 2)"
BY_DRAW = "unique codes, by the draw (theorem 6)"
ALMOST_ALL = "unique codes for almost all values (theorem 3)"
STOPPING_SET = "smallest stopping set found (theorem 2)"
VALUES = "values that count"
WITHOUT_SMALL = ", without values near zero"


def values_that_count(columns: SparseMatrix, tau: float) -> Statement:
    """How many values are zero or near it."""
    present, near = columns.mask.degrees, columns.effective.degrees
    total, absent = columns.support.entries, present.size - columns.used.size
    zero, dropped = total - int(present.sum()), int((present - near).sum())
    histogram = {str(degree): int((near == degree).sum()) for degree in range(columns.d + 1) if (near == degree).any()}
    sentence = (
        f"Of {total:,} values {zero:,} are zero, and {dropped:,} more ({dropped / total:.2%}) are near it: at most "
        f"{tau:g} times the norm of their column. No statement is about columns without values, here {absent:,}."
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
        sentence = "One feature can touch all coordinates of another, so overlaps prove nothing."
        return Statement(BY_OVERLAPS + suffix, "open", sentence, numbers)
    sentence = (
        f"For all values that are not zero, {up_to(k)} is unique: it takes at least {overlaps.peelable_set} other "
        "features to touch all coordinates of one."
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


def stopping_set(columns: SparseMatrix, found: Int64[np.ndarray, " features"], restarts: int) -> Statement:
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
        f"{found.size} features form a stopping set, so it is false that {those_of(k)} are unique for all "
        f"values that are not zero; {verdict}."
    )
    numbers = {"features": found.tolist(), "size": found.size, "smallest_singular_value": smallest, "k": k}
    return Statement(STOPPING_SET, "refuted", sentence, numbers)


def by_draw(
    columns: SparseMatrix, mask: Mask, looked_at: int, ks: Sequence[int], delta: float, found: int, suffix: str = ""
) -> Statement:
    """How unlikely a draw of such a support is that has a small stopping set.

    That sets of up to `looked_at` features are none is known from overlaps, which is of use where values are lost;
    `found` is the size of one that is, or 0.
    """
    name, draw = BY_DRAW + suffix, Draw.of(columns.support)
    if draw is None:
        kind = "chosen by training or given" if columns.support.is_stored else f"{columns.support.construction!r}"
        sentence = f"It holds for uniform and partitioned rows as they were drawn, and these rows are {kind}."
        return Statement(name, "not applicable", sentence, {})
    lost = np.pad(mask.lost, (0, columns.n), mode="edge")[: draw.largest_set]
    looked_at = looked_at if lost.any() else 1
    certified = largest_certified(draw, delta, lost, looked_at)
    sizes = {k: min(2 * k, draw.n) for k in ks if min(2 * k, draw.n) <= draw.largest_set}
    bounds = log_bounds(draw, lost[: max(sizes.values())], looked_at) if sizes else np.empty(0)
    logs = {k: min(0.0, float(bounds[size - 1]) / math.log(10)) for k, size in sizes.items()}
    numbers: dict[str, Any] = {
        "k": certified, "delta": delta, "no_stopping_set_up_to": looked_at,
        "most_values_lost_by_one_column": int(lost[0]),
        "log10_share_of_draws": {str(k): log10 for k, log10 in logs.items()},
    }  # fmt: skip
    if found and found <= 2 * certified:
        sentence = f"This draw has a stopping set of {found} features, which at most {delta:g} of all draws have."
        return Statement(name, "refuted", sentence, numbers)
    status: Status = "proved" if certified else "open"
    return Statement(name, status, _sentence_of_draw(certified, delta, logs, int(lost[0]), looked_at), numbers)


def _sentence_of_draw(certified: int, delta: float, logs: Mapping[int, float], lost: int, looked_at: int) -> str:
    shares = ", ".join(f"{power(log10)} for k = {k}" for k, log10 in logs.items() if log10 < 0)
    asked = f" At most this share of draws fails: {shares}." if shares else ""
    beyond = ", ".join(str(k) for k, log10 in logs.items() if log10 >= 0)
    asked += f" For k = {beyond} it proves nothing." if beyond else ""
    without = (
        f", whichever values are left out, up to {lost} of a column (overlaps rule out sets of up to {looked_at})"
        if lost
        else ""
    )
    if certified == 0:
        return f"No k has a share of failing draws that is proved to be {delta:g} or less{without}.{asked}"
    return (
        f"All but a share of {delta:g} of the draws of such rows make {up_to(certified)} unique, for all values that "
        f"are not zero{without}. It is about the draw: the seed must not have been chosen by its result.{asked}"
    )
