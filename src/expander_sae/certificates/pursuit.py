"""Statements about all codes of k features at once: pursuit by coherence, and what a code's l1 norm keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from expander_sae.certificates.coherence import Coherence
from expander_sae.certificates.head_mass import HeadMass, spreading
from expander_sae.certificates.overlaps import Overlaps
from expander_sae.certificates.statements import Statement, those_of, up_to

PURSUIT = "pursuit for all codes (coherence, Babel function)"
SPREADING = "l1 norm of all codes (theorem 1)"
BASIS_PURSUIT = "basis pursuit for all codes (theorem 4)"
EXPANSION = "limits of theorem 1 (worst expansion found)"


def not_of_one_degree() -> Iterator[Statement]:
    """What theorem 1 cannot say where columns differ in length."""
    for name in (SPREADING, BASIS_PURSUIT, EXPANSION):
        yield Statement(name, "not applicable", "It is about columns of equally many values, and these differ.", {})


def pursuit(coherence: Coherence, ks: Sequence[int]) -> Statement:
    """For how many features greedy pursuit cannot fail."""
    k, most = coherence.babel_k, len(coherence.babel) - 1
    welch = coherence.welch_k
    numbers = {
        "k": k, "k_is_at_least": k == most, "mu": coherence.mu, "babel": coherence.babel.tolist(),
        "k_from_mu_alone": coherence.coherence_k, "welch_mu": coherence.welch_mu, "welch_k": welch,
    }  # fmt: skip
    bound = (
        "" if welch is None
        else f" No dictionary of this size has mu below {coherence.welch_mu:.3g}, so mu certifies k = {welch} at most."
    )  # fmt: skip
    if k == 0:
        sentence = f"Two columns are parallel (mu = {coherence.mu:.6g}), so no pursuit can tell them apart.{bound}"
        return Statement(PURSUIT, "refuted", sentence, numbers)
    beyond = [str(each) for each in ks if each > k and k < most]
    asked = f" For k = {', '.join(beyond)} it proves nothing." if beyond else ""
    sentence = (
        f"Orthogonal matching pursuit finds {up_to(k)}{' at least' if k == most else ''} (without signs, each one that "
        f"is not negative): columns have a cosine of at most mu = {coherence.mu:.4g}.{asked}{bound}"
    )
    return Statement(PURSUIT, "proved", sentence, numbers)


def l1_norm(head_mass: HeadMass, overlaps: Overlaps, d: int, sizes: int) -> Statement:
    """How much of the l1 norm of its weighted codes every activation keeps, by size of the code."""
    constants = [spreading(overlaps.collisions(size, d), head_mass) for size in range(1, sizes + 1)]
    last = max(size for size in range(1, sizes + 1) if constants[size - 1] > 0)
    numbers: dict[str, Any] = {
        "size": last, "constants": {str(size): constants[size - 1] for size in range(1, last + 1)},
        "beta": head_mass.betas, "head_mass": head_mass.curve.tolist(),
    }  # fmt: skip
    betas = ", ".join(f"{name} {beta:.2f}" for name, beta in head_mass.betas.items())
    flatness = f"Largest value over mean, by column: {betas} (1 is flat)."
    if last < 2:
        sentence = f"Some columns are too uneven, or share too much, for codes of two features already. {flatness}"
        return Statement(SPREADING, "open", sentence, numbers)
    shown = ", ".join(f"{constants[size - 1]:.2f} for {size}" for size in _some_sizes(last))
    sentence = (
        f"For all codes x of up to {last} features the l1 norm of W x is at least c times that of x, each feature "
        f"counted by the l1 norm of its column: c = {shown}. {flatness}"
    )
    return Statement(SPREADING, "proved", sentence, numbers)


def expansion(epsilon: Float64[Tensor, " sizes"], head_mass: HeadMass, d: int) -> Statement:
    """The sets that expand worst, and where they put an end to theorem 1."""
    found = {size: float(epsilon[size - 1]) for size in _some_sizes(len(epsilon))}
    vacuous = [size for size in range(1, len(epsilon) + 1)
               if spreading(float(epsilon[size - 1]) * d, head_mass) <= 0]  # fmt: skip
    numbers = {
        "epsilon": {str(size): value for size, value in found.items()},
        "theorem_1_gives_nothing_from": vacuous[0] if vacuous else None,
    }  # fmt: skip
    shown = ", ".join(f"{value:.3f} for t = {size}" for size, value in found.items())
    sentence = (
        f"There are sets of t features that touch fewer coordinates than they have values by this share: {shown}."
    )
    if not vacuous:
        return Statement(EXPANSION, "measured", sentence, numbers)
    sentence += (
        f" So theorem 1, with the worst column, has nothing to say about codes of {vacuous[0]} features or more."
    )
    return Statement(EXPANSION, "refuted", sentence, numbers)


def basis_pursuit(
    head_mass: HeadMass, overlaps: Overlaps, epsilon: Float64[Tensor, " sizes"], d: int, ks: Sequence[int]
) -> Statement:
    """For how many features l1 minimisation cannot fail, and for which k this condition is known to be false."""

    def condition(at_k: float, at_2k: float) -> float:
        return 2 * head_mass.of_collisions(at_k) + 2 * head_mass.of_collisions(2 * at_2k)

    most = len(epsilon) // 2
    proved = [k for k in range(1, most + 1)
              if condition(overlaps.collisions(k, d), overlaps.collisions(2 * k, d)) < 1 - 1e-9]  # fmt: skip
    false = [k for k in range(1, most + 1)
             if condition(d * float(epsilon[k - 1]), d * float(epsilon[2 * k - 1])) >= 1]  # fmt: skip
    certified = max(proved, default=0)
    numbers = {"k": certified, "condition_is_false_from": false[0] if false else None}
    known = f" From k = {false[0]} on the condition is false: a set of features breaks it." if false else ""
    if certified:
        sentence = f"With costs |W_j|_1, basis pursuit finds {up_to(certified)}.{known}"
        return Statement(BASIS_PURSUIT, "proved", sentence, numbers)
    asked = f" This says nothing about typical {those_of(max(ks))}."
    return Statement(BASIS_PURSUIT, "refuted" if false and false[0] == 1 else "open",
                     f"The condition for it is proved for no k.{known}{asked}", numbers)  # fmt: skip


def _some_sizes(largest: int) -> list[int]:
    """2, 4, 8, ... and the largest."""
    return sorted({2**power for power in range(1, largest.bit_length()) if 2**power < largest} | {largest})
