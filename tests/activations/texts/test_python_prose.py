"""The text that needs no download."""

import itertools
import sys
from pathlib import Path

import pytest

from expander_sae.activations.texts import Document, documents, python_prose
from expander_sae.activations.texts.files import fingerprint

MODULE = '''"""{long} module."""
import does_not_exist

class Thing:
    """{long} class."""

    def method(self):
        """Too short."""
        def inner():
            """{long} inside."""

if True:
    def conditional():
        """{long} conditional."""

    add_docstr(Thing.method, r"""
{long} attached.
""".format(a=1))

def copy():
    """{long}
    CLASS!"""
'''
LONG = "It says something in words " * 10


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of our own, and no other library."""
    monkeypatch.setattr(python_prose.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(python_prose, "LIBRARIES", ())
    return tmp_path


def test_everything_that_is_documented(tree: Path) -> None:
    (tree / "one.py").write_text(MODULE.replace("{long}", LONG))
    found = list(documents("python", part="all"))
    names = [document.source_id for document in found]
    assert names == ["one", "one.Thing", "one.Thing.method.inner", "one.conditional", "one:16"]
    assert found[0].text == f"{LONG} module."
    assert found[-1].text == f"{LONG} attached."


def test_tests_and_foreign_packages_are_left_out(tree: Path) -> None:
    for number, place in enumerate(["test/a.py", "sub/tests/b.py", "test_c.py", "site-packages/d.py", "conftest.py"]):
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_text(f'"""{LONG} {number}"""')
    (tree / "broken.py").write_text(f'"""{LONG}""" (')
    (tree / "sub" / "__init__.py").write_text(f'"""{LONG} kept"""')
    assert [document.source_id for document in documents("python", part="all")] == ["sub"]


def test_order_does_not_depend_on_the_file_system(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcdefgh":
        (tree / f"{name}.py").write_text(f'"""{LONG} {name}"""')
    forwards = list(documents("python", part="all"))
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))
    assert list(documents("python", part="all")) == forwards
    assert len(forwards) == 8


def test_the_real_one() -> None:
    """Its first documents come without importing anything, are long enough, different, and from several libraries."""
    imported = set(sys.modules)
    first: list[Document] = list(itertools.islice(documents("python", part="all"), 1500))
    assert set(sys.modules) - imported <= {"pydoc_data", "pydoc_data.topics"}
    assert len({fingerprint(document.text) for document in first}) == 1500
    assert min(len(document.text) for document in first) >= 200
    roots = {document.source_id.partition(".")[0] for document in first}
    assert {"numpy", "scipy", "torch"} < roots
    assert not [document for document in first if ".. versionadded::" in document.text or "\n>>> " in document.text]
