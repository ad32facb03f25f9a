"""What a certificate consists of: statements, in words, each of which is proved, refuted, open or only measured."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from expander_sae.errors import ExpanderError

Status = Literal["proved", "refuted", "open", "measured", "not applicable"]
"""Refuted: there is a witness against it. Open: the method was applied and decides nothing."""
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Statement:
    """One thing that is said about a dictionary."""

    name: str
    """What it is about, and the theorem that it rests on."""
    status: Status
    sentence: str
    """In words, complete without the numbers below."""
    numbers: Mapping[str, Any]
    """Everything that the sentence rests on, as JSON holds it."""


@dataclass(frozen=True)
class Certificate:
    """Everything that is proved, refuted and measured about one dictionary."""

    dictionary: str
    """What was looked at."""
    k: tuple[int, ...]
    """Features per token that it was asked about."""
    statements: tuple[Statement, ...]
    settings: Mapping[str, Any]
    """What was asked for, the version of the library included."""

    def __getitem__(self, name: str) -> Statement:
        """The statement of this name."""
        for statement in self.statements:
            if statement.name == name:
                return statement
        names = "; ".join(statement.name for statement in self.statements)
        raise ExpanderError(f"This certificate says nothing about {name!r}, only about: {names}.")

    def with_status(self, status: Status) -> tuple[Statement, ...]:
        """The statements that have this status."""
        return tuple(statement for statement in self.statements if statement.status == status)

    def to_json(self) -> dict[str, Any]:
        """The same as a dictionary that JSON can hold; what is not finite is None."""
        plain: dict[str, Any] = _plain({**vars(self), "statements": [vars(each) for each in self.statements]})
        return plain


def _plain(value: Any) -> Any:
    """Mappings to dictionaries, sequences to lists, what is not finite to None."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


HEADINGS: dict[Status, str] = {
    "proved": "PROVED",
    "refuted": "REFUTED, by a witness",
    "open": "OPEN: tried, and nothing is decided",
    "measured": "MEASURED, not proved",
    "not applicable": "DOES NOT APPLY",
}


def as_text(certificate: Certificate, width: int = 100) -> str:
    """Every statement under the heading of its status."""
    asked = ", ".join(map(str, certificate.k))
    parts = [f"{certificate.dictionary}; k = {asked}"]
    for status in STATUSES:
        statements = certificate.with_status(status)
        if statements:
            parts.append(f"\n{HEADINGS[status]}")
        for statement in statements:
            parts.append(f"  {statement.name}")
            parts.append(textwrap.fill(statement.sentence, width, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(parts)


def count(number: int, noun: str) -> str:
    """1 feature, 2,000 features."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def power(log10: float) -> str:
    """A number from its logarithm, also where it is too small for a float."""
    if log10 >= -300 or log10 == -math.inf:
        return f"{10**log10:.2g}"
    return f"{10 ** (log10 - math.floor(log10)):.2g}e{math.floor(log10)}"


def up_to(k: int) -> str:
    """What a statement covers."""
    return f"every code of {'one feature' if k == 1 else f'up to {k} features'}"


def those_of(k: int) -> str:
    """What a statement does not cover."""
    return f"codes of {'one feature' if k == 1 else f'{k} features'}"
