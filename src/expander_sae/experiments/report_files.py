"""The report of an experiment: the numbers as JSON, one table as CSV, words and tables as Markdown, and pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expander_sae.evaluation.results import Estimate
from expander_sae.files import replace_file, write_json
from expander_sae.reporting.charts import Picture
from expander_sae.reporting.tables import Table
from expander_sae.version import __version__

HOW_TO_READ, PICTURES = "How to read this", "Pictures"
"""Headings that every report has."""


@dataclass(frozen=True)
class Report:
    """What an experiment says."""

    name: str
    """What its files are called, the ending aside; pictures add what they show."""
    title: str
    findings: Sequence[str]
    """What the numbers say, a sentence each."""
    tables: Mapping[str, Table]
    """By their headings."""
    notes: Sequence[str]
    """How to read it."""
    pictures: Mapping[str, Picture]
    """By what they show."""
    facts: Mapping[str, Any]
    """What the numbers were made with, for the JSON; no paths."""
    rows: Sequence[object]
    """Records, a line each in the CSV and an entry each in the JSON; all of one kind."""
    further: Mapping[str, Table] = field(default_factory=dict)
    """Long tables, which come last."""

    def write(self, folder: Path) -> Path:
        """Write NAME.json, .csv and .md and the pictures; the path of the Markdown."""
        flat = [flat_row(row) for row in self.rows]
        content = {"library_version": __version__, **self.facts, "rows": flat}
        write_json(folder / f"{self.name}.json", content)
        replace_file(folder / f"{self.name}.csv", csv_of(flat).encode())
        for shown, picture in self.pictures.items():
            picture.save(folder / f"{self.name}_{shown}")
        path = folder / f"{self.name}.md"
        replace_file(path, self.to_markdown().encode())
        return path

    def to_markdown(self) -> str:
        """The words and tables, with the pictures beside them."""
        names = [f"{self.name}_{shown}" for shown in self.pictures]
        parts = [
            f"# {self.title}",
            _listed(self.findings),
            *_sections(self.tables),
            f"## {HOW_TO_READ}",
            _listed(self.notes),
            f"## {PICTURES}",
            "\n".join(f"![{name}]({name}.svg)" for name in names),
            *_sections(self.further),
        ]
        return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _sections(tables: Mapping[str, Table]) -> list[str]:
    return [part for heading, table in tables.items() for part in (f"## {heading}", table.to_markdown())]


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for every row; what does not exist is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def flat_row(row: object) -> dict[str, Any]:
    """The numbers of a record by name; an estimate takes three, nan is None."""
    flat: dict[str, Any] = {}
    for name, value in vars(row).items():
        if isinstance(value, Estimate):
            flat |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            flat[name] = value
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in flat.items()}
