"""What a configuration must be, each check one sentence long when it fails.

A dataclass says by its annotations which numbers its fields may hold: `tokens: Count`, `warm_up: Share`. A number
without such a word must be finite and fit into 64 bits. Where something is made says so too: `out: StoreFolder`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Mark = TypeVar("Mark")


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold, all of them finite."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    """It and all below it are out."""
    below: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and self.above < number < self.below and abs(number) < math.inf

    def __str__(self) -> str:
        if self.least > -math.inf and self.most < math.inf:
            return f"from {self.least} to {self.most}"
        if self.least > -math.inf and self.below < math.inf:
            return f"from {self.least} to below {self.below}"
        parts = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {bound}" for word, bound in parts.items() if abs(bound) < math.inf) or "finite"


LARGEST = 2**63 - 1
"""The largest whole number of 64 bits."""
Count = Annotated[int, Range(1)]
"""How many of something that there must be one of."""
Several = Annotated[int, Range(2)]
"""How many of something whose spread is measured."""
CountOrNone = Annotated[int, Range(0)]
"""How many of something that may be left out."""
Few = Annotated[int, Range(1, 10_000)]
"""How many of something that is listed."""
FewOrNone = Annotated[int, Range(0, 10_000)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""32 bits, which every generator takes."""
Share = Annotated[float, Range(0, 1)]
"""A part of a whole, all and nothing of it among them."""
SomeShare = Annotated[float, Range(most=1, above=0)]
"""A part of a whole, and not nothing."""
Decay = Annotated[float, Range(0, below=1)]
"""What is kept of the past at every step."""
Positive = Annotated[float, Range(above=0)]
Weight = Annotated[float, Range(0)]
"""What something counts beside others, 0 for nothing."""


@dataclass(frozen=True)
class Makes:
    """Marks a field with a place where something is made: a folder of a kind, or a file."""

    kind: str
    """What is made there, with its article."""
    inside: bool = False
    """Whether it may be inside a folder that is read for it."""
    parents: bool = False
    """Whether the folders above a file are made as well."""


AutoencoderFolder = Annotated[Path, Makes("an autoencoder")]
StoreFolder = Annotated[Path, Makes("a store")]
StudyFolder = Annotated[Path, Makes("a study")]
DatabaseFolder = Annotated[Path, Makes("a feature database", inside=True)]
PageFolder = Annotated[Path, Makes("a page", inside=True)]
ForeignFolder = Annotated[Path, Makes("a folder of another library")]
File = Annotated[Path, Makes("a file", inside=True)]
FileInNewFolder = Annotated[Path, Makes("a file", inside=True, parents=True)]


def check_fields(config: DataclassInstance) -> None:
    """Refuse a number in a field that its annotation does not allow; fields hold numbers, or tuples of them."""
    rules = _rules(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check_number(field.name, number, rules[field.name])


def check_all_fields(config: DataclassInstance) -> None:
    """The same, and so on in the dataclasses that fields hold."""
    check_fields(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            check_all_fields(value)


def _check_number(name: str, number: float, allowed: Range) -> None:
    if number not in allowed:
        finite = " and finite" if abs(number) == math.inf and str(allowed) != "finite" else ""
        raise ExpanderError(f"{name} must be {allowed}{finite}, not {number}.")
    if isinstance(number, int) and abs(number) > LARGEST:
        raise ExpanderError(f"{name} must fit into 64 bits, which hold numbers up to {LARGEST}.")


@cache
def _rules(config: type) -> dict[str, Range]:
    """What the numbers of every field may be."""
    hints = get_type_hints(config, include_extras=True)
    return {name: mark_in(hint, Range) or Range() for name, hint in hints.items()}


def mark_in(hint: Any, kind: type[Mark]) -> Mark | None:
    """The mark of this kind that stands in an annotation, be it inside of `| None` or of a tuple."""
    parts = getattr(hint, "__metadata__", ()) + get_args(hint)
    found = (part if isinstance(part, kind) else mark_in(part, kind) for part in parts)
    return next((each for each in found if each is not None), None)


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below its least sensible value, or one that is infinite or beyond 64 bits."""
    _check_number(name, value, Range(least))


def distinct(name: str, numbers: Sequence[float], least: float) -> None:
    """Refuse a list of numbers that is empty, names one of them twice, or holds one below the least."""
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < least:
        raise ExpanderError(f"{name} must be different numbers of at least {least}, not {numbers}.")


def a_text(name: str, text: str) -> None:
    """Refuse half a character, which no tokenizer reads and no file in UTF-8 holds."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ExpanderError(f"{name} holds {text[error.start]!a}, which is no character; leave it out.") from error


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
