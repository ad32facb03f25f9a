"""Labels of tokens that the text itself tells, without anybody having labelled it."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int, str]
"""First character, the one behind the last, and what is true of them."""

OPENING, CLOSING = "([{", ")]}"
OPENING_CHARACTERS = 200
"""Characters that are the beginning of a document."""

PATTERNS = {
    "digits": re.compile(r"\d+"),
    "all capitals": re.compile(r"\b[A-Z]{2,}\b"),
    "name": re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+"),
    "quotation": re.compile(r"\"[^\"\n]{1,500}\"|“[^”\n]{1,500}”"),
    "first word of a sentence": re.compile(r"(?:(?<=^)|(?<=[.!?] )|(?<=[.!?]\n))[A-Z]\w*", re.MULTILINE),
    "question": re.compile(r"[A-Z][^.!?\n]{0,300}\?"),
    "code": re.compile(r"^(?: {4,}|\t|>>> )[^\n]*[=(){}\[\]][^\n]*$|```.*?```", re.MULTILINE | re.DOTALL),
    "address": re.compile(r"\bhttps?://\S+"),
    "beginning of the document": re.compile(rf"\A.{{1,{OPENING_CHARACTERS}}}", re.DOTALL),
}
"""What finds the characters of each label; `name` is a word with a capital in the middle of a sentence."""


def labels_of_text(text: str) -> list[Span]:
    """Every span of a document with what is true of it."""
    found = [(*match.span(), name) for name, pattern in PATTERNS.items() for match in pattern.finditer(text)]
    return [*found, *_brackets(text)]


def _brackets(text: str) -> Iterator[Span]:
    """What stands between brackets, and what stands between brackets inside others."""
    open_: list[tuple[str, int]] = []
    for place, character in enumerate(text):
        if character in OPENING:
            open_.append((character, place))
        elif character in CLOSING and open_ and OPENING.index(open_[-1][0]) == CLOSING.index(character):
            _, begin = open_.pop()
            yield begin, place + 1, "in brackets" if not open_ else "in brackets inside others"
