"""The prose that every installation carries: Python's own documentation and the docstrings of its libraries."""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from expander_sae.activations.texts.docstrings import clean_docstring
from expander_sae.activations.texts.document import Document, fingerprint

LIBRARIES = ("numpy", "scipy", "torch")
"""Beside the standard library; this package depends on them, so they are always there."""
TOPICS = "pydoc_data.topics"
"""The language reference, as `help()` shows it; its module holds texts and no code."""
SHORTEST = 200
"""Characters; anything shorter is rather a label than a text."""

_SKIPPED_FOLDERS = {"idle_test", "site-packages", "dist-packages", "testing", "_vendor", "__pycache__"}
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


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
