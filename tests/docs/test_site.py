"""The site of `make docs`: it builds, every page is in its navigation, and nothing on it leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import expander_sae as xs
from expander_sae.cli.commands import NAMES

ROOT = Path(__file__).parents[2]
LINKS = re.compile(r'(?:href|src)="([^"]+)"')
ANCHORS = re.compile(r'(?:id|name)="([^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it; a link to a page or a heading that is not there ends it."""
    folder = tmp_path_factory.mktemp("docs") / "built"
    command = [sys.executable, str(ROOT / "docs" / "build_site.py"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, str]:
    """The text of every page."""
    return {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html") if page.name != "404.html"}


def targets(page: Path, text: str, site: Path) -> Iterator[tuple[Path, str]]:
    """The files of the site that a page leads to, with the place in them."""
    for link in LINKS.findall(text):
        parts = urlsplit(unescape(link))
        if parts.scheme or parts.netloc:
            continue
        path = unquote(parts.path)
        target = (site / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve() if path else page
        yield (target / "index.html" if target.is_dir() else target), unquote(parts.fragment)


@pytest.mark.slow
def test_every_link_and_picture_is_there(site: Path, pages: dict[Path, str]) -> None:
    places = {page.resolve(): set(map(unescape, ANCHORS.findall(text))) for page, text in pages.items()}
    broken = [
        f"{page.relative_to(site)}: {target} {place}"
        for page, text in pages.items()
        for target, place in targets(page, text, site)
        if not target.is_file() or (place and target in places and place not in places[target])
    ]
    assert not broken
    assert len(places) > 30


@pytest.mark.slow
def test_the_reference_has_every_public_name_and_command(site: Path) -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").rglob("*.html"))
    there = set(ANCHORS.findall(reference))
    names = {f"expander_sae.{name}" for name in xs.__all__ if name != "kernels"}
    assert names | {"expander_sae.kernels.select", "expander_sae.kernels.pursue"} <= there
    assert {f"expander-{name}" for name in NAMES} <= there


@pytest.mark.slow
def test_every_page_is_in_the_navigation_and_the_other_way_round(site: Path) -> None:
    config = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]
    named = set(leaves(config["nav"]))
    there = site.parent / config["docs_dir"]
    pages = {*there.glob("*.md"), *there.glob("docs/*.md"), *there.glob("reference/*.md")}
    assert named == {page.relative_to(there).as_posix() for page in pages}


def leaves(branch: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(branch, str):
        yield branch
    else:
        for part in branch.values() if isinstance(branch, dict) else branch:
            yield from leaves(part)
