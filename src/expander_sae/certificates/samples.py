"""Sets of features looked at one by one, random ones or those of codes: each is decided, the share is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import local
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from scipy.special import betaincinv  # scipy.stats takes long to import

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.certificates.local import DenseSets, Local, SparseSets
from expander_sae.certificates.matrix import Matrix, SparseMatrix
from expander_sae.certificates.progress import Progress
from expander_sae.certificates.statements import Statement
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory

CONFIDENCE = 0.95
TOKENS_AT_ONCE = 1024

Sets = Sequence[Int64[np.ndarray, " features"]]


@dataclass(frozen=True)
class Rate:
    """A share of a population, from a sample of it."""

    passed: int
    trials: int
    low: float
    """With `high` the Clopper-Pearson interval of 95 %."""
    high: float

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Rate:
        """The share of true outcomes."""
        each = list(outcomes)
        return cls.counted(sum(each), len(each))

    @classmethod
    def counted(cls, passed: int, trials: int) -> Rate:
        """So many of so many."""
        tail = (1 - CONFIDENCE) / 2
        low = float(betaincinv(passed, trials - passed + 1, tail)) if passed else 0.0
        high = float(betaincinv(passed + 1, trials - passed, 1 - tail)) if passed < trials else 1.0
        return cls(passed, trials, low, high)

    @property
    def share(self) -> float:
        """Of the sample."""
        return self.passed / self.trials

    def __str__(self) -> str:
        return f"{self.share:.1%} of them (95 % interval {self.low:.1%} to {self.high:.1%})"


def random_sets(features: Int64[np.ndarray, " features"], k: int, number: int, seed: int) -> Sets:
    """Independent uniformly random sets of k of these features, ascending."""
    check_memory(f"A list of {number:,} sets of {k} features", (100.0 + 8 * k) * number, instead="ask for fewer sets")
    generator = np.random.default_rng([seed, k])
    return [np.sort(generator.choice(features, k, replace=False, shuffle=False)) for _ in range(number)]


def sets_of_codes(codes: Codes) -> Sets:
    """The features that each token uses, ascending; tokens that use none are left out."""
    active, indices = (
        codes.active.reshape(-1, codes.active.shape[-1]),
        codes.indices.reshape(-1, codes.indices.shape[-1]),
    )
    sets = [np.unique(line[used].numpy()) for line, used in zip(indices.cpu(), active.cpu(), strict=True)]
    return [each.astype(np.int64) for each in sets if each.size]


@torch.no_grad()
def codes_of_store(sae: SparseAutoencoder, store: Store, tokens: int, seed: int, report: Progress) -> Codes:
    """The autoencoder's own codes for tokens drawn from all over a store, massive ones left out."""
    if store.width != sae.m:
        raise ExpanderError(
            f"The dictionary is for activations of width {sae.m}, but those of {store.path} are {store.width} wide; "
            "give a store of the hookpoint that it was trained on."
        )
    if len(store) == 0:
        raise ExpanderError(f"{store.path} holds no token yet; let the harvest write at least one shard.")
    chosen = np.sort(np.random.default_rng(seed).choice(len(store), min(tokens, len(store)), replace=False))
    pieces: list[Codes] = []
    for start in range(0, len(chosen), TOKENS_AT_ONCE):
        batch = [store[position : position + 1] for position in chosen[start : start + TOKENS_AT_ONCE].tolist()]
        ordinary = [token.activations for token in batch if not bool(token.massive)]
        if ordinary:
            pieces.append(sae.encode(torch.cat(ordinary).to(sae.dictionary.device, torch.float32)).to("cpu"))
        report("encoding", start + len(batch), len(chosen))
    if not pieces:
        raise ExpanderError(f"Every token drawn from {store.path} is massive, so no code can be looked at.")
    return Codes.concatenate(pieces)


def decide(columns: Matrix, sets: Sets, stage: str, report: Progress) -> list[Local]:
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


def _decider(columns: Matrix) -> Callable[[Any], Local]:
    if isinstance(columns, SparseMatrix):
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
