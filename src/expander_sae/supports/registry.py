"""The one table of constructions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from expander_sae.supports.balanced import BALANCED
from expander_sae.supports.construction import Construction, SupportError
from expander_sae.supports.controls import BANDED, BLOCK, CLUSTERED, SHARED
from expander_sae.supports.cyclic import CYCLIC
from expander_sae.supports.greedy import GREEDY
from expander_sae.supports.lines import LINES
from expander_sae.supports.uniform import PARTITIONED, UNIFORM

_TABLE: Mapping[str, Construction] = MappingProxyType(
    {
        construction.name: construction
        for construction in (
            UNIFORM,
            PARTITIONED,
            BALANCED,
            LINES,
            GREEDY,
            CYCLIC,
            CLUSTERED,
            SHARED,
            BLOCK,
            BANDED,
        )
    }
)


def constructions() -> Mapping[str, Construction]:
    """Every construction by name: one line of what it is, and its parameters with their defaults."""
    return _TABLE


def named(text: str) -> tuple[str, dict[str, int]]:
    """The construction that a text such as `clustered:16` names and its parameters; behind the colon is the first."""
    name, colon, number = text.partition(":")
    parameters = find(name).parameters
    if not colon:
        return name, {}
    if not parameters or not number.isdecimal():
        with_one = ", ".join(each.name for each in _TABLE.values() if each.parameters)
        raise SupportError(f"{text!r} needs a whole number behind the colon, which only {with_one} can have.")
    return name, {next(iter(parameters)): int(number)}


def find(name: str) -> Construction:
    """The construction of this name, or an error that lists the names."""
    if name not in _TABLE:
        raise SupportError(
            f"Construction {name!r} is not one of {', '.join(_TABLE)}; "
            "learned or imported rows are given to Support.from_rows instead."
        )
    return _TABLE[name]
