"""How config.json describes a coder: the name of its class and its parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

from expander_sae.coders import Coder
from expander_sae.coders.named import CODERS
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.storage.json_fields import Fields, check_json


def known_coders() -> dict[str, type[Coder]]:
    """The coders of this library by name, the only ones a file can name."""
    return {coder.__name__: coder for coder in CODERS.values()}


def coder_to_json(coder: Coder) -> dict[str, Any]:
    """What config.json holds about a coder."""
    name = type(coder).__name__
    if known_coders().get(name) is not type(coder):
        raise StorageError(
            f"The coder {name} is not one of this library's ({', '.join(known_coders())}), so a file cannot name it; "
            "save sae.with_coder(...) with one of them and set your own after loading."
        )
    parameters = {field.name: getattr(coder, field.name) for field in dataclasses.fields(coder)}
    check_json(parameters, name)
    return {"name": name, "parameters": parameters}


def parse_coder(fields: Fields) -> Coder:
    """The coder that these fields of config.json hold."""
    name, parameters = fields.take("name", str), fields.take("parameters", dict)
    fields.finish()
    known = known_coders()
    if name not in known:
        raise StorageError(f"{fields.where}: the coder {name!r} is not known here; update expander-sae to load it.")
    unknown = set(parameters) - {field.name for field in dataclasses.fields(known[name])}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise StorageError(f"{fields.where}: the coder {name} has no parameter {names} here; update expander-sae.")
    try:
        return known[name](**parameters)
    except (ExpanderError, TypeError) as error:
        reason = str(error).rstrip(".")
        raise StorageError(f"{fields.where}: the coder {name} cannot have these parameters: {reason}.") from error
