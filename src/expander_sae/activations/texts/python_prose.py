"""The prose that every installation carries: Python's own documentation and the docstrings of its libraries."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from expander_sae.activations.texts.files import Document, fingerprint

LIBRARIES = ("numpy", "scipy", "torch")
"""Beside the standard library; this package depends on them, so they are always there."""
TOPICS = "pydoc_data.topics"
"""The language reference, as `help()` shows it; its module holds texts and no code."""
SHORTEST = 200
"""Characters; anything shorter is rather a label than a text."""

_SKIPPED_FOLDERS = {"idle_test", "site-packages", "dist-packages", "testing", "_vendor", "__pycache__"}
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

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


def python_prose() -> Iterator[Document]:
    """Cleaned, different documents of at least SHORTEST characters; the same installation gives the same order.

    Source files are read and never imported. Modules come in the order of a hash of their names, so the first documents
    are already a mixture of all libraries, and only as many files are read as documents are asked for.
    """
    seen = set()
    modules = sorted(_modules(), key=lambda module: hashlib.sha256(module[0].encode()).digest())
    for name, path in modules:
        for place, raw in _topics() if name == TOPICS else _docstrings(name, path):
            text = clean_docstring(raw)
            if len(text) < SHORTEST:
                continue
            mark = fingerprint(text)
            if mark not in seen:
                seen.add(mark)
                yield Document(text, place)


def _modules() -> Iterator[tuple[str, Path]]:
    """Name and file of every module that is not a test."""
    yield from _modules_under(Path(sysconfig.get_path("stdlib")), "")
    for library in LIBRARIES:
        found = find_spec(library)
        if found is not None and found.origin is not None:
            yield from _modules_under(Path(found.origin).parent, library)


def _modules_under(folder: Path, package: str) -> Iterator[tuple[str, Path]]:
    for path in folder.iterdir():
        name = f"{package}.{path.stem}" if package else path.stem
        is_test = path.stem in ("test", "tests", "conftest") or path.stem.startswith("test_")
        if is_test or path.stem.endswith("_test") or path.name in _SKIPPED_FOLDERS:
            continue
        if path.is_dir():
            yield from _modules_under(path, name)
        elif path.suffix == ".py":
            yield name.removesuffix(".__init__"), path


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"{TOPICS}:{name}", topics[name]


def _docstrings(module: str, path: Path) -> Iterator[tuple[str, str]]:
    """The full name and the docstring of everything in the file, in the order of the file."""
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:  # reading a file is a hundred times faster than parsing it
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in other people's strings
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # a template, or code for another version of Python
            return
    yield from _documented(tree, module)


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Docstrings of definitions, and texts that a call such as add_docstr(function, text) attaches from outside."""
    if isinstance(node, _Documented):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, f"{name}.{child.name}")
        elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            yield from _attached(child.value, name)
        elif isinstance(child, ast.If | ast.Try | ast.With | ast.For):
            yield from _documented(child, name)


def _attached(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    called = ast.unparse(call.func).rpartition(".")[2]
    if "docstr" in called or "newdoc" in called:
        for argument in call.args:
            for part in ast.walk(argument):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) >= SHORTEST:
                    yield f"{name}:{part.lineno}", part.value


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
