"""Reports as one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from expander_sae.errors import ExpanderError
from expander_sae.reporting.charts import GRID, INK, PALETTE, Picture, check_matplotlib
from expander_sae.reporting.report import Report

if TYPE_CHECKING:
    from jinja2 import Template

WIDE = 420.0
"""Points from which on a drawing without a caption takes the whole width of the page."""


class _Drawing(NamedTuple):
    svg: str
    title: str
    caption: str
    wide: bool


def check_installed() -> None:
    """Refuse, with the command that helps, if pages with new pictures cannot be made here."""
    check_matplotlib()
    _template()


def page_of(reports: Sequence[Report], title: str) -> str:
    """The HTML of one report, or of several with links to each, in the order in which they are read."""
    drawings = [
        [
            _drawing(picture, f"p{place}-{number}", shown)
            for number, (shown, picture) in enumerate(report.pictures.items())
        ]
        for place, report in enumerate(reports)
    ]
    return _template().render(title=title, reports=reports, drawings=drawings)


def _template() -> Template:
    """How a page is laid out, or the command that helps where that cannot be read."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError:
        raise ExpanderError("A report needs jinja2: pip install 'expander-sae[report]'.") from None
    environment = Environment(
        loader=PackageLoader("expander_sae.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.jinja")


def _drawing(picture: Picture, prefix: str, shown: str) -> _Drawing:
    from markupsafe import Markup

    width = re.search(r'viewBox="\S+ \S+ (\S+) ', picture.svg)
    wide = not picture.caption and width is not None and float(width[1]) > WIDE
    svg = Markup(themed(picture.svg, prefix, picture.title or shown))
    return _Drawing(svg, picture.title, picture.caption, wide)


def themed(svg: str, prefix: str, title: str) -> str:
    """A drawing to be put into a page: colours that follow its theme, ids that no other drawing has."""
    colors = {"ink": INK, "grid": GRID, **{f"series-{number}": color for number, color in enumerate(PALETTE)}}
    for name, color in colors.items():
        svg = svg.replace(color, f"var(--{name})")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
