"""What a study says, as one object: JSON holds all of it, and text, tables and pages are made from it."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import Interval, Kind
from expander_sae.files import conforms, read_checked, replace_file, write_checked
from expander_sae.reporting.charts import Picture
from expander_sae.reporting.highlights import FeatureCard
from expander_sae.reporting.tables import Cell, Table
from expander_sae.version import __version__

SHOWN = ("made", "activations", "settings")
"""Facts that a page lists one by one."""


@dataclass(frozen=True)
class Features:
    """Some features and where they fire."""

    about: str
    """Which dictionary they are of, how they were chosen, and where the contexts come from."""
    cards: Sequence[FeatureCard]


@dataclass(frozen=True)
class Report:
    """What a study says, in the order in which it is read."""

    name: str
    """What its files are called, the ending aside; pictures add what they show."""
    title: str
    findings: Sequence[str]
    """What the numbers say, a sentence each."""
    tables: Mapping[str, Table]
    """By their headings; the first one is shown on a terminal."""
    notes: Sequence[str]
    """How to read it."""
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    """By what they show."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the numbers were made with, as JSON holds it; no paths. `settings` and `seconds` are shown on a page."""
    rows: Sequence[Mapping[str, Any]] = ()
    """What was measured, a line each in the CSV and an entry each in the JSON; all have the same columns."""
    further: Mapping[str, Table] = field(default_factory=dict)
    """Long tables, which come last."""
    features: Features | None = None
    cautions: Sequence[str] = ()
    """What must not be concluded."""
    commands: Sequence[str] = ()
    """What makes it again."""
    version: str = __version__
    """Of the library that made it."""

    def write(self, folder: Path) -> Path:
        """Write the pictures, NAME.csv, NAME.md, and last NAME.json, when all is there; the path of the Markdown."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.md"
        made = {path: self.to_markdown().encode()}
        for shown, picture in self.pictures.items():
            made[folder / f"{self.name}_{shown}.svg"] = picture.svg.encode()
            made[folder / f"{self.name}_{shown}.png"] = picture.png
        if self.rows:
            made[folder / f"{self.name}.csv"] = csv_of([flat(row) for row in self.rows]).encode()
        for file, data in made.items():
            replace_file(file, data)
        digests = {file.name: hashlib.sha256(data).hexdigest() for file, data in made.items()}
        write_checked(folder / f"{self.name}.json", {**self.to_json(), "files": digests})
        return path

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report whose JSON this is, with the pictures beside it."""
        try:
            content = read_checked(path)
            name, shown = content["name"], list(content["pictures"])
            files = [f"{name}.md", *(f"{name}_{each}{ending}" for each in shown for ending in (".svg", ".png"))]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _damaged(path) from error
        missing = next((file for file in files if not (path.parent / file).exists()), None)
        if missing:
            raise ExpanderError(
                f"The report in {path.parent} is not finished, {missing} is missing; run its study again with the same "
                "--out."
            )
        try:
            for file, digest in content.pop("files").items():
                if hashlib.sha256((path.parent / file).read_bytes()).hexdigest() != digest:
                    raise _damaged(path.parent / file)
            pictures = {each: Picture.load(path.parent / f"{name}_{each}") for each in shown}
            return cls.from_json(content, pictures)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise _damaged(path) from error

    def to_json(self) -> dict[str, Any]:
        """All of it but the drawings themselves, which are files of their own; the facts stand beside the rest."""
        intervals = {
            name: value.kind for row in self.rows for name, value in row.items()
            if isinstance(value, Interval) and value.kind != Kind.NONE
        }  # fmt: skip
        return {
            "library_version": self.version,
            "name": self.name,
            "title": self.title,
            "findings": list(self.findings),
            **self.facts,
            "notes": list(self.notes),
            "cautions": list(self.cautions),
            "commands": list(self.commands),
            "pictures": {
                shown: {"title": each.title, "caption": each.caption} for shown, each in self.pictures.items()
            },
            "tables": {heading: _table_to_json(table) for heading, table in self.tables.items()},
            "further": {heading: _table_to_json(table) for heading, table in self.further.items()},
            "features": None if self.features is None else asdict(self.features),
            "intervals": intervals,
            "rows": [flat(row) for row in self.rows],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Report:
        """What `to_json` made of it; KeyError, TypeError or ValueError if something is missing or of another kind."""
        if not conforms(content, _Content):
            raise TypeError
        kinds = {name: Kind(kind) for name, kind in content["intervals"].items()}
        features = content["features"]
        return cls(
            name=content["name"],
            title=content["title"],
            findings=content["findings"],
            tables={heading: _table_from_json(table) for heading, table in content["tables"].items()},
            notes=content["notes"],
            pictures={
                shown: pictures[shown].titled(each["title"], each["caption"])
                for shown, each in content["pictures"].items()
            },
            facts={name: value for name, value in content.items() if name not in _Content.__annotations__},
            rows=[_with_intervals(row, kinds) for row in content["rows"]],
            further={heading: _table_from_json(table) for heading, table in content["further"].items()},
            features=None if features is None else Features(
                features["about"], [FeatureCard.from_json(card) for card in features["cards"]]
            ),
            cautions=tuple(content["cautions"]),
            commands=tuple(content["commands"]),
            version=content["library_version"],
        )  # fmt: skip

    def to_markdown(self) -> str:
        """The words and tables, with the pictures beside them."""
        names = [f"{self.name}_{shown}" for shown in self.pictures]
        parts = [
            f"# {self.title}",
            _listed(self.findings),
            *_sections(self.tables),
            "## How to read this",
            _listed(self.notes),
            *(["## Pictures", "\n".join(f"![{name}]({name}.svg)" for name in names)] if names else []),
            *_sections(self.further),
            *(["## What not to conclude", _listed(self.cautions)] if self.cautions else []),
        ]
        return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"

    @property
    def made(self) -> list[tuple[str, str]]:
        """How it was made, name and value: activations, settings, times and the version."""
        seconds = ", ".join(f"{stage} {taken}" for stage, taken in self.facts.get("seconds", {}).items())
        said = [entry for name in SHOWN for entry in self.facts.get(name, {}).items()]
        return [*((name, _said(value)) for name, value in said), ("seconds", seconds), ("expander-sae", self.version)]


class _TableContent(TypedDict):
    headings: list[str | list[str]]
    rows: list[list[str | list[str]]]
    caption: str


class _PictureContent(TypedDict):
    title: str
    caption: str


class _FeaturesContent(TypedDict):
    about: str
    cards: list[FeatureCard]


class _Content(TypedDict):
    """What the JSON of a report says, facts apart."""

    library_version: str
    name: str
    title: str
    findings: list[str]
    notes: list[str]
    cautions: list[str]
    commands: list[str]
    pictures: dict[str, _PictureContent]
    tables: dict[str, _TableContent]
    further: dict[str, _TableContent]
    features: _FeaturesContent | None
    intervals: dict[str, str]
    rows: list[dict[str, Any]]


def _damaged(path: Path) -> ExpanderError:
    return ExpanderError(f"{path} was edited or damaged; run its study again to have it written anew.")


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _sections(tables: Mapping[str, Table]) -> list[str]:
    return [part for heading, table in tables.items() for part in (f"## {heading}", table.to_markdown())]


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "–" if value is None else str(value)


def _table_to_json(table: Table) -> dict[str, Any]:
    """Cells of one text as it is, others as [text, below, terse]."""

    def plain(cell: Cell) -> str | list[str]:
        return [cell.text, cell.below, cell.terse] if cell.below or cell.terse else cell.text

    rows = [[plain(cell) for cell in row] for row in table.rows]
    return {"headings": [plain(cell) for cell in table.headings], "rows": rows, "caption": table.caption}


def _table_from_json(content: Mapping[str, Any]) -> Table:
    def cell(plain: str | list[str]) -> Cell:
        return Cell(plain) if isinstance(plain, str) else Cell(*plain)

    rows = [[cell(each) for each in row] for row in content["rows"]]
    return Table([cell(each) for each in content["headings"]], rows, content["caption"])


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for every row; what does not exist is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of plain numbers: one with an interval takes three columns, nan is None."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Interval):
            found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            found[name] = value
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in found.items()}


def _with_intervals(row: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The row that was made flat; `kinds` names the columns that hold intervals."""
    ends = {f"{name}_{end}" for name in kinds for end in ("low", "high")}

    def number(name: str) -> float:
        return math.nan if row[name] is None else float(row[name])

    return {
        name: Interval(number(name), number(f"{name}_low"), number(f"{name}_high"), kinds[name])
        if name in kinds
        else value
        for name, value in row.items()
        if name not in ends
    }
