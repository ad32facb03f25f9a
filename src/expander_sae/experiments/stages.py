"""The stages of a long experiment: announced, timed, and the times kept beside what the stages made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from expander_sae.files import write_json

FILE = "seconds.json"
"""The file of times in the folder of the experiment."""


class Listener(Protocol):
    """Hears how an experiment goes on."""

    def begins(self, stage: str, what: str, total: int | None) -> None:
        """A stage begins; `total` is what it will count up to, None if it counts nothing."""

    def proceeds(self, done: int) -> None:
        """So much of the stage's total is done."""

    def ends(self, outcome: str, seconds: float) -> None:
        """The stage is over."""


class Stage:
    """A stage in progress."""

    def __init__(self, proceeds: Callable[[int], None]) -> None:
        self.proceeds = proceeds
        """To be called with how much of the total is done."""
        self.outcome = ""
        """What came out, in a few words."""


class Stages:
    """Runs stage after stage; `seconds` holds what each took, over all runs that worked on it."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        self._path, self._listener = folder / FILE, listener
        self.seconds: dict[str, float] = json.loads(self._path.read_text()) if self._path.exists() else {}

    @contextmanager
    def stage(self, name: str, what: str, *, total: int | None = None, found: bool = False) -> Iterator[Stage]:
        """A stage; `found` says that an earlier run did its work, so that reading what it left is not counted."""
        self._listener.begins(name, what, total)
        stage, begin = Stage(self._listener.proceeds), time.perf_counter()
        try:
            yield stage
        finally:
            elapsed = time.perf_counter() - begin
            if not found:
                self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._path, self.seconds)
        self._listener.ends(f"found {stage.outcome}" if found else stage.outcome, elapsed)
