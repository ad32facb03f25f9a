"""Statements about sets of features that were looked at one by one: each is decided exactly, the share is measured."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from threading import local
from typing import Any

import numpy as np
import torch

from expander_sae.certificates.local import DenseSets, Local, SparseSets
from expander_sae.certificates.progress import Report
from expander_sae.certificates.sampling import Rate, Sets
from expander_sae.certificates.statements import Statement
from expander_sae.certificates.subject import Columns, SparseColumns


def decide(columns: Columns, sets: Sets, stage: str, report: Report) -> list[Local]:
    """What is known about each of these sets."""
    own = local()

    def decided(features: Any) -> Local:
        if not hasattr(own, "decider"):
            own.decider = _decider(columns)
        return own.decider(features)

    found: list[Local] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for each in pool.map(decided, sets):
            found.append(each)
            report(stage, len(found), len(sets))
    return found


def _decider(columns: Columns) -> Callable[[Any], Local]:
    if isinstance(columns, SparseColumns):
        return SparseSets(columns.values, columns.units, columns.mask, columns.effective)
    return DenseSets(columns.units)


def statements_about(found: list[Local], population: str) -> list[Statement]:
    """Pursuit, uniqueness, conditioning and the l1 norm on the sets of a population, such as "random sets of 16"."""
    statements = [_pursuit(found, population), _conditioning(found, population)]
    if found[0].remaining is not None:
        statements[1:1] = [_uniqueness(found, population)]
        statements.append(_l1_norm(found, population))
    return statements


def _pursuit(found: list[Local], population: str) -> Statement:
    rate = Rate.of(each.recovers for each in found)
    ercs = np.array([each.erc for each in found])
    sentence = (
        f"Signed orthogonal matching pursuit, and basis pursuit with unit columns, find every code on {rate}; "
        f"on the others they may still find most. The condition asks for less than 1; {_quantiles(ercs)['median']:.3g} "
        "is in the middle."
    )
    numbers = asdict(rate) | {"share": rate.share, "erc": _quantiles(ercs)}
    return Statement(f"pursuit on {population} (Tropp's condition)", "measured", sentence, numbers)


def _uniqueness(found: list[Local], population: str) -> Statement:
    rate = Rate.of(each.remaining == 0 for each in found)
    effective = Rate.of(each.remaining_effective == 0 for each in found)
    sentence = (
        f"For all values that are not zero, columns are independent on {rate}; without values near zero on "
        f"{effective.share:.1%}."
    )
    sizes = [each.remaining for each in found if each.remaining]
    numbers = asdict(rate) | {
        "share": rate.share, "without_values_near_zero": asdict(effective) | {"share": effective.share},
        "smallest_stopping_set": min(sizes, default=None),
    }  # fmt: skip
    return Statement(f"unique codes on {population} (peeling)", "measured", sentence, numbers)


def _conditioning(found: list[Local], population: str) -> Statement:
    quantiles = _quantiles(np.array([each.smallest_singular_value for each in found]))
    sentence = (
        f"The smallest singular value of their unit columns is {quantiles['least']:.3g} at worst, "
        f"{quantiles['median']:.3g} in the middle."
    )
    return Statement(f"conditioning on {population}", "measured", sentence, {"smallest_singular_value": quantiles})


def _l1_norm(found: list[Local], population: str) -> Statement:
    constants = np.array([each.spreading for each in found])
    rate = Rate.of(bool(constant > 0) for constant in constants)
    quantiles = _quantiles(constants)
    sentence = (
        f"|W x|_1 is at least c times the l1 norm of the weighted code with a positive c on {rate}; c is "
        f"{quantiles['median']:.2f} in the middle."
    )
    numbers = asdict(rate) | {"share": rate.share, "c": quantiles}
    return Statement(f"l1 norm on {population} (theorem 1)", "measured", sentence, numbers)


def _quantiles(values: Any) -> dict[str, float]:
    """A few order statistics, none between two values: some are infinite."""
    shares = {"least": 0.0, "1 %": 0.01, "median": 0.5, "99 %": 0.99, "most": 1.0}
    return {name: float(np.quantile(values, part, method="lower")) for name, part in shares.items()}
