"""From a docstring to prose: without signatures, sessions of the interpreter, and the markup of reStructuredText."""

from __future__ import annotations

import inspect
import re
import textwrap

SHARE_OF_LETTERS = 0.7
"""A text with fewer letters and spaces is a table, a formula or a drawing."""

_SIGNATURES = re.compile(r"\A(?:[\w.]+\([^()]*(?:\([^()]*\)[^()]*)*\)[ ]*(?:->[^\n]*)?\n)+")
_DIRECTIVE = re.compile(r"(\s*)\.\. ([\w:-]+)::\s*(.*)")
_WITH_PROSE = {"note", "warning", "seealso", "important", "tip", "hint", "caution", "attention", "admonition", "topic"}
_REFERENCE = re.compile(r"(\s*)\.\. (\[)")
_TARGET = re.compile(r"\s*\.\. [_|].*")
_RULE = re.compile(r"\s*(?:[-=~^*+\"#`|]{3,}[-=~^*+\"#`| ]*|={2,}(?: +={2,})*)\s*")
_PLACEHOLDER = re.compile(r"\s*(?:\{\w+\}|%\(\w+\)s)[.,]?\s*")
_EMPTY_EXAMPLE = re.compile(r"\s*Examples?\s*::?\s*")
_ROLE = re.compile(r":[\w:+-]+:`[~!.]?([^`<]*?)(?:\s*<[^`>]*>)?`")
_NO_LETTER = re.compile(r"[^\w\s]|[\d_]")
_LITERAL = re.compile(r"``([^`]*)``")


def clean_docstring(raw: str) -> str:
    """The prose of a docstring, possibly the empty text."""
    lines = _without_blocks(_SIGNATURES.sub("", inspect.cleandoc(raw)).splitlines())
    text = "\n".join(_without_empty_sections(lines))
    text = _LITERAL.sub(r"`\1`", _ROLE.sub(r"`\1`", text))
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
    # What was taken out may have been all that was not indented.
    text = textwrap.dedent(text).strip()
    letters = len(text) - len(_NO_LETTER.findall(text))
    return text if letters >= SHARE_OF_LETTERS * len(text) else ""


def _without_blocks(lines: list[str]) -> list[str]:
    """The lines outside of sessions and of directives that hold no prose; rules under headings are kept."""
    kept = []
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        directive = _DIRECTIVE.fullmatch(line)
        if line.lstrip().startswith(">>>"):
            while position < len(lines) and lines[position].strip():
                position += 1
        elif directive:
            indent, kind, argument = directive.groups()
            end = _end_of_block(lines, position, len(indent))
            if kind in _WITH_PROSE:
                body = inspect.cleandoc("\n" + "\n".join(lines[position:end]))
                # Cleaned by itself, for directives and sessions may lie inside.
                kept += [indent + inner for inner in [argument, *_without_blocks(body.splitlines()), ""]]
            position = end
        elif not (_TARGET.fullmatch(line) or _PLACEHOLDER.fullmatch(line) or _EMPTY_EXAMPLE.fullmatch(line)):
            kept.append(_REFERENCE.sub(r"\1\2", line))
    return kept


def _end_of_block(lines: list[str], start: int, indent: int) -> int:
    """The first line from `start` on that is neither empty nor indented by more than `indent`."""
    for position in range(start, len(lines)):
        line = lines[position]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return position
    return len(lines)


def _without_empty_sections(lines: list[str]) -> list[str]:
    """Without rules, and without headings that nothing is left under."""
    kept: list[str] = []
    content_follows = False
    for position in range(len(lines) - 1, -1, -1):
        line = lines[position]
        if _RULE.fullmatch(line):
            continue
        ruled = position + 1 < len(lines) and _RULE.fullmatch(lines[position + 1]) is not None
        is_heading = bool(line.strip()) and ruled
        if is_heading and not content_follows:
            continue
        if line.strip():
            content_follows = not is_heading
        kept.append(line)
    return kept[::-1]
