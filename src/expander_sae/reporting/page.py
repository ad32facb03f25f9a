"""A report as one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expander_sae.errors import ExpanderError
from expander_sae.reporting.charts import GRID, INK, PALETTE, Picture, check_matplotlib
from expander_sae.reporting.highlights import FeatureCard
from expander_sae.reporting.tables import Table

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Figure:
    """A picture and what to see in it."""

    picture: Picture
    title: str
    caption: str


@dataclass(frozen=True)
class Page:
    """What a report says, in the order in which it is read."""

    title: str
    summary: str
    """What the numbers say, in a sentence or two."""
    table: Table
    notes: Sequence[str]
    """How to read the table."""
    figures: Sequence[Figure]
    features_of: str
    """Which dictionary the features are of, and where the contexts come from."""
    features: Sequence[FeatureCard]
    facts: Sequence[tuple[str, str]]
    """How it was made: name and value."""
    commands: Sequence[str]
    """What makes it again."""
    cautions: Sequence[str]
    """What must not be concluded."""


def check_installed() -> None:
    """Refuse, with the command that helps, if pages with new pictures cannot be made here."""
    check_matplotlib()
    template("page.html.jinja")


def template(name: str) -> Template:
    """One of the templates of this room, or the command that helps where none can be read."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ExpanderError("A report needs jinja2: pip install 'expander-sae[report]'.") from None
    environment = Environment(
        loader=PackageLoader("expander_sae.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)


def render(page: Page) -> str:
    """The HTML of a page."""
    check_installed()
    from markupsafe import Markup

    drawings = [
        Markup(themed(figure.picture.svg, f"f{number}", figure.title)) for number, figure in enumerate(page.figures)
    ]
    return template("page.html.jinja").render(page=page, drawings=drawings)


def themed(svg: str, prefix: str, title: str) -> str:
    """A drawing to be put into a page: colours that follow its theme, ids that no other drawing has."""
    colors = {"ink": INK, "grid": GRID, **{f"series-{number}": color for number, color in enumerate(PALETTE)}}
    for name, color in colors.items():
        svg = svg.replace(color, f"var(--{name})")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
