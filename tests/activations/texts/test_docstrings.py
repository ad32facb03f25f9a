"""Docstrings to prose: what goes, and that everything else stays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.activations.texts.python_prose import clean_docstring

CASES = {
    "signature": ("concatenate(\n    (a1, a2), axis=0) -> Tensor\n\nJoin arrays.", "Join arrays."),
    "session": ("Add numbers.\n\n>>> add(1, 2)\n3\n\nThat was it.", "Add numbers.\n\nThat was it."),
    "empty section": ("Add.\n\nExamples\n--------\n>>> add(1)\n1\n\nNotes\n-----\nGood.", "Add.\n\nNotes\nGood."),
    "section at the end": ("Add numbers.\n\nExamples\n--------\n>>> add(1, 2)\n3", "Add numbers."),
    "directive": ("Add.\n\n.. versionadded:: 1.2\n   By someone.\n\nSubtract.", "Add.\n\nSubtract."),
    "note": (
        "Add.\n\n.. note:: Be careful\n   with floats.\n\nSubtract.",
        "Add.\n\nBe careful\nwith floats.\n\nSubtract.",
    ),
    "session in a note": ("Add.\n\n.. note::\n   Like so:\n\n   >>> 1\n   1\n\nEnd.", "Add.\n\nLike so:\n\nEnd."),
    "roles": (
        "See :func:`~torch.abs`, :math:`x` and :ref:`this <that>` or ``y``.",
        "See `torch.abs`, `x` and `this` or `y`.",
    ),
    "reference": (
        "As in the book [1]_.\n\n.. [1] An Author.\n.. _link: http",
        "As in the book [1]_.\n\n[1] An Author.",
    ),
    "template": (
        "Absolute value.\n\nArgs:\n    {input}\n    dim (int): which one",
        "Absolute value.\n\nArgs:\n    dim (int): which one",
    ),
    "literal": ("Do this::\n\n    add(one)\n\nThat.", "Do this:\n\n    add(one)\n\nThat."),
    "only a drawing": ("+--+--+\n|1 |2 |\n+--+--+", ""),
    "indented": ("\n    First.\n\n        Second.\n    ", "First.\n\n    Second."),
}


@pytest.mark.parametrize("case", CASES)
def test_what_goes(case: str) -> None:
    raw, expected = CASES[case]
    assert clean_docstring(raw) == expected


WORDS = st.lists(st.text("abcdefghij", min_size=1, max_size=8), min_size=3, max_size=8).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=6))
@settings(deadline=None, max_examples=50)
def test_plain_prose_is_kept_and_cleaning_is_idempotent(paragraphs: list[str]) -> None:
    prose = "\n\n".join(paragraphs)
    assert clean_docstring(prose) == prose


@given(st.text("ab >.:`-=\n(){}|", max_size=120))
@settings(deadline=None, max_examples=200)
def test_any_text_can_be_cleaned(text: str) -> None:
    cleaned = clean_docstring(text)
    assert len(cleaned) <= len(text.expandtabs())
    assert "\n\n\n" not in cleaned
