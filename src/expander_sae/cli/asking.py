"""What a command is asked for: read once, checked once, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from expander_sae.checks import check_all_fields
from expander_sae.cli.outputs import check_outputs
from expander_sae.errors import ExpanderError

Asked = TypeVar("Asked")


def asked_for(kind: type[Asked], prog: str, arguments: Sequence[str]) -> Asked:
    """The dataclass that the arguments fill; numbers, texts and places that cannot be are refused by a sentence."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        _check_text(before, argument)
    asked: Any = tyro.cli(kind, prog=prog, args=arguments)
    check_all_fields(asked)
    check_outputs(asked)
    return asked


def _check_text(before: str, argument: str) -> None:
    name, equals, value = argument.partition("=") if argument.startswith("--") else (before, "=", argument)
    if equals and not value:
        where = f" behind {name}" if name.startswith("--") else ""
        raise ExpanderError(f"There is an empty text{where}; give something, or leave the option out.")
    if "\0" in value:
        raise ExpanderError("A NUL character can be no part of a name or a text; leave it out.")
