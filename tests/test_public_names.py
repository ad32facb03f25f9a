"""Every public name is there, is what its room calls so, and is found in each of the usual ways."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import expander_sae as xs
from expander_sae import coders

STUB = ast.parse(Path(xs.__file__).with_suffix(".pyi").read_text())
(DECLARED,) = (
    ast.literal_eval(node.value)
    for node in STUB.body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
)


@pytest.mark.parametrize("name", DECLARED)
def test_a_name_is_there_and_listed(name: str) -> None:
    assert getattr(xs, name).__name__.removeprefix("expander_sae.") == name
    assert name in dir(xs)


def test_what_is_declared_is_what_there_is() -> None:
    assert sorted(DECLARED) == sorted(xs.__all__)


def test_every_coder_is_public() -> None:
    assert set(coders.__all__) <= set(DECLARED)


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from expander_sae import *", names)
    assert set(DECLARED) <= names.keys()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Dictionry"):
        xs.Dictionry  # noqa: B018
    with pytest.raises(ImportError, match="Dictionry"):
        from expander_sae import Dictionry  # noqa: F401
