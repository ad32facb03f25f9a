"""What a study of recovery says in words, and how to read its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from expander_sae.experiments.recovery import ITERATIONS, STEPS_OF_MP, RecoveryResult
from expander_sae.experiments.recovery_rows import Transition, half_of


def sentences(result: RecoveryResult, transitions: Sequence[Transition]) -> list[str]:
    """How far every coder gets, at the size in the middle of those that all dictionaries have."""
    m = result.config.m
    common = [n for n in result.config.features if all((name, n) not in result.absent for name in _present(result))]
    if not common:
        return ["No size is there for all dictionaries; see the table."]
    n = common[len(common) // 2]
    lines = []
    for coder in result.config.coders:
        places = [each for each in transitions if (each.coder, each.n_over_m) == (coder, n / m)]
        said = ", ".join(f"{each.dictionary} {_words(result, each.k_over_m.value)}" for each in places)
        if said:
            lines.append(f"n = {n / m:g} m, {coder}: half of the tokens are recovered up to k / m of {said}.")
    return [*lines, _condition(result, n)]


def _condition(result: RecoveryResult, n: int) -> str:
    """How far recovery is proved for half of the random sets of features."""
    config, found = result.config, {name: known for (name, size), known in result.certificates.items() if size == n}
    halves = {name: half_of(config, known.condition, config.sets).value for name, known in found.items()}
    said = ", ".join(f"{name} {_words(result, half)}" for name, half in halves.items())
    return (
        f"n = {n / config.m:g} m, exact recovery condition: on half of the random sets of features OMP and l1 "
        f"minimisation are proved to find every code, whatever its coefficients, up to k / m of {said}."
    )


def _present(result: RecoveryResult) -> list[str]:
    """Dictionaries that exist at some size."""
    return list(dict.fromkeys(name for name, _ in result.certificates))


def _words(result: RecoveryResult, place: float) -> str:
    shares = [k / result.config.m for k in result.config.active]
    if place == 0:
        return f"below {shares[0]:.3f}"
    return f"above {shares[-1]:.3f}" if math.isinf(place) else f"{place:.3f}"


def notes(result: RecoveryResult) -> list[str]:
    """How to read the table and the picture, and what must not be concluded."""
    config = result.config
    sizes = {"flat": "all 1", "uniform": "uniform between 0.5 and 1.5", "gaussian": "normally distributed"}
    signs = "of either sign" if config.signed else "all positive"
    return [
        f"m = {config.m}, d = {config.d}, {config.columns} columns of unit norm (dense ones are Gaussian); k features "
        f"drawn at random, coefficients {sizes[config.coefficients]}, {signs}, no noise; {config.tokens} tokens a "
        "cell, the same supports and coefficients for every dictionary and coder.",
        "Recovered: the k largest codes are exactly the planted features. Intervals are Clopper-Pearson, 95 %, over "
        "tokens; the dictionary is one draw. Once no token of a cell is recovered, larger k are not tried; they are "
        "drawn as none and missing from the numbers.",
        f"OMP takes k steps, so a single wrong pick counts against it; MP takes {STEPS_OF_MP} k, and the k largest of "
        f"its codes are read off. The lasso has a penalty of {config.penalty:g} of the largest useful one, at most "
        f"{ITERATIONS} iterations of FISTA, and is read off the same way.",
        "The voting decoder accepts a code once enough coordinates agree on it: by default one more than any two "
        "columns share, because weights of equal size add up to the same wrong vote on all coordinates that two "
        "features share. So its reach depends on the largest overlap. It is for noise-free data, and there is nothing "
        "to vote on where every feature touches every coordinate.",
        "Proved lines hold for every support of that size, predicted ones for most supports as m grows. Certificates "
        "from coherence end far below what happens to random supports: that is what such proofs cost, not what coders "
        "do.",
        f"Exact recovery condition (Tropp): decided on {config.sets} random sets of features of every size. Where it "
        "holds, OMP with signs, and l1 minimisation, find every code on that set, the worst one too, so it ends before "
        "what ordinary coefficients allow. Matching pursuit then never takes a wrong column, but need not have taken "
        "all after so many steps; it has no such line.",
        "Exactly sparse, noise-free codes over a known dictionary: nothing here says what activations of a language "
        "model allow.",
        *(f"{name} has no n = {n / config.m:g} m: {why}" for (name, n), why in result.absent.items()),
    ]
