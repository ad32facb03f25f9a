"""What a configuration must be, each check one sentence long when it fails."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from expander_sae.errors import ExpanderError


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below its least sensible value."""
    if not value >= least:
        raise ExpanderError(f"{name} must be at least {least}, not {value}.")


def distinct(name: str, numbers: Sequence[float], least: float) -> None:
    """Refuse a list of numbers that is empty, names one of them twice, or holds one below the least."""
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < least:
        raise ExpanderError(f"{name} must be different numbers of at least {least}, not {numbers}.")


def share(name: str, value: float, of: str) -> None:
    """Refuse what is no share of a whole, or nothing of it."""
    if not 0 < value <= 1:
        raise ExpanderError(f"{name} must be a share of {of} above 0, at most 1, not {value}.")


def a_feature(number: int, n: int) -> None:
    """Refuse a number that none of n features has."""
    if not 0 <= number < n:
        raise ExpanderError(f"There is no feature {number}; they are numbered from 0 to {n - 1}.")


def one_of(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse a word that is none of the choices."""
    if value not in choices:
        raise ExpanderError(f"{name} must be one of {', '.join(choices)}, not {value}.")


def different(name: str, given: Sequence[str], choices: Collection[str]) -> None:
    """Refuse a list of words that is empty, names one of them twice, or holds one that is none of the choices."""
    if not given or len(set(given)) < len(given) or not set(given) <= set(choices):
        raise ExpanderError(f"{name} must be different ones of {', '.join(choices)}, not {given}.")
