"""What a construction is: a name, its parameters, and a pure function from a request to rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from expander_sae.errors import ExpanderError

Indices = NDArray[np.uint64]
"""Feature numbers, one-dimensional."""
Rows = NDArray[np.int64]
"""One line of d distinct coordinates per feature, in any order."""

Value = int | str


NO_ROW = -1
"""What stands behind the last row of a feature that touches fewer coordinates than others."""


class SupportError(ExpanderError):
    """A support that cannot exist, or that a construction cannot make."""


@dataclass(frozen=True)
class Request:
    """The sizes, the seed and the parameters from which a construction makes rows."""

    m: int
    n: int
    d: int
    seed: int
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def integer(self, name: str) -> int:
        """The parameter of this name, an integer."""
        return int(self.parameters[name])


@dataclass(frozen=True)
class Parameter:
    """A parameter of one construction: its default fixes its type."""

    default: Value
    summary: str
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> Value:
        """The value itself, or an error that says what it may be."""
        if isinstance(self.default, str):
            if value not in self.choices:
                raise SupportError(f"Parameter {name} must be one of {', '.join(self.choices)}, not {value!r}.")
            return str(value)
        return integer(f"Parameter {name}", value)


def _accept(request: Request) -> None:
    """Every size with d <= m is fine."""


@dataclass(frozen=True)
class Construction:
    """A way to make supports; exactly one of `rows_of` (features alone) and `all_rows` (all together) is given."""

    name: str
    summary: str
    rows_of: Callable[[Request, Indices], Rows] | None = None
    all_rows: Callable[[Request], Rows] | None = None
    check: Callable[[Request], None] = _accept
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def procedural(self) -> bool:
        """Whether the rows of one feature are computed without the other features."""
        return self.rows_of is not None

    def resolve(self, given: Mapping[str, object]) -> dict[str, Value]:
        """All parameters, with defaults for those not given."""
        for name in given:
            if name not in self.parameters:
                known = ", ".join(self.parameters) if self.parameters else "no parameters"
                raise SupportError(f"Construction {self.name!r} has no parameter {name!r}; it knows {known}.")
        return {
            name: parameter.check(name, given.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }


def integer(what: str, value: object) -> int:
    """The value as an int; booleans and floats are refused, NumPy integers are not."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise SupportError(f"{what} must be an integer, not {value!r}.")
    return int(value)
