"""What stands in code in README and docs: blocks with language and place, and commands, in them or in a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

ROOT = Path(__file__).parents[2]
PAGES = [
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "src/**/notes.md")
    for page in sorted(ROOT.glob(pattern))
]
PROMPT = "$ "
"""In front of a command whose output follows it in the same block."""
INLINE = re.compile(r"(?<!`)`(expander\s[a-z]+(?:\s[^`]*)?)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A block between fences."""

    page: str
    line: int
    """Of its first line of code, in the page."""
    language: str
    """What stands behind the fence; nothing for commands."""
    text: str

    @property
    def commands(self) -> Iterator[str]:
        """Its commands, one a line unless a backslash ends it; of a block with a prompt, the lines that have it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        prompted = [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]
        for line in prompted or lines:
            yield from filter(None, map(str.strip, line.split("&&")))


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in its order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = RawFencedCodeBlockLexer(re.compile(r"(?P<language>\w*)$\n", re.MULTILINE))(Document(text, page))
    return [
        Block(
            page,
            text.count("\n", 0, region.start + region.lexemes["source"].offset) + 1,
            region.lexemes["language"],
            region.lexemes["source"].text,
        )
        for region in found
    ]


def inline_commands(page: str) -> list[str]:
    """Commands of expander that a sentence names with something behind their name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(found.split()) for found in INLINE.findall(outside)]
