"""Several reports bound into one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from expander_sae.reporting.page import template, themed
from expander_sae.reporting.tables import Table

WIDE = 420.0
"""Points from which on a drawing takes the whole width of the page."""


@dataclass(frozen=True)
class Chapter:
    """One report."""

    name: str
    """The kind of experiment, one word."""
    title: str
    findings: Sequence[str]
    """What the numbers say, a sentence each."""
    tables: Mapping[str, Table]
    """By their headings."""
    notes: Sequence[str]
    """How to read it."""
    pictures: Mapping[str, str]
    """SVG by what it shows."""
    further: Mapping[str, Table]
    """Long tables, folded away."""
    facts: Sequence[tuple[str, str]]
    """How it was made: name and value."""


@dataclass(frozen=True)
class Binder:
    """All of them, in the order in which they are read."""

    title: str
    chapters: Sequence[Chapter]


class _Drawing(NamedTuple):
    svg: str
    wide: bool


def bound(binder: Binder) -> str:
    """The HTML."""
    drawings = [
        [
            _drawing(svg, f"chapter{place}-{number}", shown)
            for number, (shown, svg) in enumerate(chapter.pictures.items())
        ]
        for place, chapter in enumerate(binder.chapters)
    ]
    return template("binder.html.jinja").render(binder=binder, drawings=drawings)


def _drawing(svg: str, prefix: str, title: str) -> _Drawing:
    from markupsafe import Markup

    width = re.search(r'viewBox="\S+ \S+ (\S+) ', svg)
    return _Drawing(Markup(themed(svg, prefix, title)), width is not None and float(width[1]) > WIDE)
