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
from expander_sae.supports.random_rows import PARTITIONED, UNIFORM

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


def find(name: str) -> Construction:
    """The construction of this name, or an error that lists the names."""
    if name not in _TABLE:
        raise SupportError(
            f"Construction {name!r} is not one of {', '.join(_TABLE)}; "
            "learned or imported rows are given to Support.from_rows instead."
        )
    return _TABLE[name]
