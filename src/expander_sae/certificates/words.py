"""Small pieces of sentences."""

from __future__ import annotations

import math

from expander_sae.certificates.sampling import Rate


def count(number: int, noun: str) -> str:
    """1 feature, 2,000 features."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def power(log10: float) -> str:
    """A number from its logarithm, also where it is too small for a float."""
    if log10 >= -300 or log10 == -math.inf:
        return f"{10**log10:.2g}"
    return f"{10 ** (log10 - math.floor(log10)):.2g}e{math.floor(log10)}"


def share(rate: Rate) -> str:
    """A share with its interval."""
    return f"{rate.share:.1%} of them (95 % interval {rate.low:.1%} to {rate.high:.1%})"


def up_to(k: int) -> str:
    """What a statement covers."""
    return f"every code of {'one feature' if k == 1 else f'up to {k} features'}"


def those_of(k: int) -> str:
    """What a statement does not cover."""
    return f"codes of {'one feature' if k == 1 else f'{k} features'}"
