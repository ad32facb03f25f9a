"""The folder of an experiment and the settings in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from expander_sae.errors import ExpanderError
from expander_sae.files import write_json
from expander_sae.reporting.charts import check_matplotlib

CONFIG = "config.json"
"""The file of settings in the folder of an experiment."""


class Settings(Protocol):
    """What an experiment is asked for."""

    @property
    def out(self) -> Path:
        """The folder for everything that is made."""

    def to_json(self) -> dict[str, object]:
        """What makes one run differ from another, as JSON holds it."""


@contextmanager
def settled(asked: Settings, what: str, file: str = CONFIG) -> Iterator[None]:
    """Refuse settings other than those in the folder; once what is inside accepts them it is made and they are written.

    A report without pictures is none, so what draws them must be there before hours are spent.
    """
    check_matplotlib()
    path, settings = asked.out / file, asked.to_json()
    _refuse_others(path, settings, what)
    yield
    asked.out.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def _refuse_others(path: Path, settings: dict[str, object], what: str) -> None:
    """Refuse other settings than those in the file, if it exists, naming the first difference."""
    there = json.loads(path.read_text()) if path.exists() else settings
    for name in sorted(there.keys() | settings.keys()):
        if there.get(name) != settings.get(name):
            raise ExpanderError(
                f"{path.parent} holds {what} with {name}={there.get(name)!r}, not {settings.get(name)!r}; "
                "give another folder with --out, or the same settings."
            )
