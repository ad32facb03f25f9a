"""What all studies are made of: a configuration, a folder that remembers it, stages, and cells kept on disk."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from expander_sae.errors import ExpanderError
from expander_sae.files import read_checked, write_checked
from expander_sae.reporting.charts import check_matplotlib
from expander_sae.reporting.report import Report

SETTINGS, SECONDS = "study.json", "seconds.json"
"""The files of the folder of a study that hold what was asked for, and how long every stage took."""


class Settings(Protocol):
    """What a study is asked for: a frozen dataclass, whose fields with their docstrings are its options."""

    @property
    def out(self) -> Path:
        """The folder for everything that is made."""


class Listener(Protocol):
    """Hears how a study goes on."""

    @property
    def live(self) -> bool:
        """Whether training may draw its own live lines."""

    def begins(self, stage: str, what: str, total: int | None) -> None:
        """A stage begins; `total` is what it will count up to, None if it counts nothing."""

    def proceeds(self, done: int) -> None:
        """So much of the stage's total is done."""

    def ends(self, outcome: str, seconds: float) -> None:
        """The stage is over."""


Config = TypeVar("Config", bound=Settings)


@dataclass(frozen=True)
class Study(Generic[Config]):
    """A study: what it is asked for, and what answers its question."""

    config: type[Config]
    run: Callable[[Config, Listener], Report]
    """Does what an earlier run in the same folder has not done yet, and tells what came of all of it."""


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
        self._path, self.listener = folder / SECONDS, listener
        self.seconds: dict[str, float] = read_cell(self._path) if self._path.exists() else {}

    @contextmanager
    def stage(self, name: str, what: str, *, total: int | None = None, found: bool = False) -> Iterator[Stage]:
        """A stage; `found` says that an earlier run did its work, so that reading what it left is not counted."""
        self.listener.begins(name, what, total)
        stage, begin = Stage(self.listener.proceeds), time.perf_counter()
        try:
            yield stage
        finally:
            elapsed = time.perf_counter() - begin
            if not found:
                self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_checked(self._path, self.seconds)
        self.listener.ends(f"found {stage.outcome}" if found else stage.outcome, elapsed)

    @property
    def rounded(self) -> dict[str, int]:
        """The seconds as a report shows them."""
        return {stage: round(taken) for stage, taken in self.seconds.items()}


@contextmanager
def begun(asked: Settings, listener: Listener, what: str) -> Iterator[Stages]:
    """Refuse a folder that holds something else; once the body accepts the settings, keep them in the folder.

    The body does what can fail at once, so that nothing is refused after hours. A report without pictures is none, so
    what draws them must be there as well. `what` is what the folder holds, such as "a frontier".
    """
    check_matplotlib()
    path, content = asked.out / SETTINGS, {"study": what, "settings": settings_of(asked)}
    _refuse_others(path, content)
    yield Stages(asked.out, listener)
    asked.out.mkdir(parents=True, exist_ok=True)
    write_checked(path, content)


def settings_of(config: Settings) -> dict[str, Any]:
    """What makes one run differ from another, as JSON holds it: all but the folder."""

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return str(value) if isinstance(value, Path) else value

    fields = dataclasses.asdict(config)  # type: ignore[call-overload]  # settings are dataclasses
    return {name: plain(value) for name, value in fields.items() if name != "out"}


def _refuse_others(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse another study than the one in the file, if it exists, or other settings, naming the first difference."""
    if not path.exists():
        return
    there = read_cell(path)
    if there.keys() != content.keys():
        raise damaged(path)
    if there["study"] != content["study"]:
        raise ExpanderError(
            f"{path.parent} holds {there['study']}, not {content['study']}; give another folder with --out."
        )
    old, new = there["settings"], content["settings"]
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ExpanderError(
                f"{path.parent} holds {there['study']} with {name}={old.get(name)!r}, not {new.get(name)!r}; "
                "give another folder with --out, or the same settings."
            )


def read_cell(path: Path) -> dict[str, Any]:
    """What such a file holds."""
    try:
        return read_checked(path)
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> ExpanderError:
    """What to say of a file that does not hold what was written."""
    return ExpanderError(f"{path} was edited or damaged; delete it to have it made again.")


def notes_of(package: str, *sections: str, **values: object) -> list[str]:
    """The paragraphs of notes.md beside a report, with these values in their places.

    What stands under a heading is left out unless its name is among the sections, which come first.
    """
    text = files(package).joinpath("notes.md").read_text(encoding="utf-8")
    always, *named = text.split("\n## ")
    under = {heading: body for heading, _, body in (each.partition("\n") for each in named)}
    bodies = [*(under[section] for section in sections), always]
    paragraphs = [" ".join(each.split()) for body in bodies for each in body.split("\n\n")]
    return [each.format_map(values) for each in paragraphs if each and not each.startswith("# ")]


def read_reports(folder: Path, names: Sequence[str]) -> list[Report]:
    """The reports of these names in the folder of a study; one that has none, or not all of it, is refused."""
    wanted = "give one that expander study or expander demo wrote."
    if not folder.is_dir():
        raise ExpanderError(f"There is no folder {folder}; {wanted}")
    found = [path for name in names if (path := folder / f"{name}.json").exists()]
    if not found and (folder / SETTINGS).exists():
        raise ExpanderError(
            f"The study in {folder} is not finished; run it again with the same --out, it goes on there."
        )
    if not found:
        raise ExpanderError(f"{folder} is not the folder of a study; {wanted}")
    return [Report.read(path) for path in found]
