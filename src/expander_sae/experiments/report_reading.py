"""Reports read back from the folders of finished experiments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expander_sae.errors import ExpanderError
from expander_sae.experiments.records import damaged, read_cell
from expander_sae.experiments.report_files import HOW_TO_READ, PICTURES
from expander_sae.reporting.binder import Chapter
from expander_sae.reporting.tables import Cell, Table

EXPERIMENTS = ("frontier", "controls", "amortisation", "recovery", "coding", "scaling")
"""Those whose reports can be bound; their files are called so."""


def read_chapters(folder: Path) -> list[Chapter]:
    """The reports in a folder of one experiment; one that has none, or not all of it, is refused."""
    if not folder.is_dir():
        raise ExpanderError(f"There is no folder {folder}; give one that {_listed()} wrote.")
    found = [name for name in EXPERIMENTS if (folder / f"{name}.json").exists()]
    if not found and _is_begun(folder):
        raise ExpanderError(
            f"The experiment in {folder} is not finished; run it again with the same --out, it goes on there."
        )
    if not found:
        raise ExpanderError(f"{folder} is not the folder of an experiment; give one that {_listed()} wrote.")
    return [_chapter(folder, name) for name in found]


def _is_begun(folder: Path) -> bool:
    """Whether there are the settings of an experiment; those of an autoencoder name its format."""
    path = folder / "config.json"
    return path.exists() and "format" not in read_cell(path)


def _listed() -> str:
    return f"expander {', '.join(EXPERIMENTS[:-1])} or {EXPERIMENTS[-1]}"


def _chapter(folder: Path, name: str) -> Chapter:
    """A report as `Report.write` left it, the Markdown last."""
    path = folder / f"{name}.md"
    sections = _sections(path) if path.exists() else {}
    pictures = re.findall(r"\((\S+\.svg)\)", sections.get(PICTURES, ""))
    missing = [file for file in (path.name, *pictures) if not (folder / file).exists()]
    if missing:
        raise ExpanderError(
            f"The report in {folder} is not finished, {missing[0]} is missing; run its experiment again with the same "
            "--out."
        )
    (title, findings), *_ = sections.items()
    tables = {heading: _table(text) for heading, text in sections.items() if text.startswith("| ")}
    before = list(sections).index(PICTURES)
    return Chapter(
        name=name,
        title=title,
        findings=_items(findings),
        tables={heading: table for heading, table in tables.items() if list(sections).index(heading) < before},
        notes=_items(sections[HOW_TO_READ]),
        pictures={file.removesuffix(".svg"): (folder / file).read_text(encoding="utf-8") for file in pictures},
        further={heading: table for heading, table in tables.items() if list(sections).index(heading) > before},
        facts=_facts(folder / f"{name}.json"),
    )


def _sections(path: Path) -> dict[str, str]:
    """What stands under each heading, the title first; a text without the parts of a report is refused."""
    parts = re.split(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {heading: body.strip() for heading, body in zip(parts[::2], parts[1::2], strict=True)}
    if not {HOW_TO_READ, PICTURES} <= found.keys():
        raise ExpanderError(f"{path} was edited or damaged; run its experiment again to have it written anew.")
    return found


def _items(text: str) -> list[str]:
    return [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]


def _table(text: str) -> Table:
    lines = [[Cell(cell.strip()) for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return Table(lines[0], lines[2:])


def _facts(path: Path) -> list[tuple[str, str]]:
    """The settings and the times, from the JSON of the report."""
    content = read_cell(path)
    try:
        settings: Mapping[str, Any] = content["settings"]
        seconds: Mapping[str, Any] = content["seconds"]
        version = str(content["library_version"])
        activations: Mapping[str, Any] = content.get("activations", {})
        said = [*activations.items(), *settings.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path) from error
    times = ", ".join(f"{stage} {taken}" for stage, taken in seconds.items())
    return [*((name, _said(value)) for name, value in said), ("seconds", times), ("expander-sae", version)]


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "–" if value is None else str(value)
