"""Contexts of features as pieces of text."""

from __future__ import annotations

from expander_sae.reporting.highlights import highlighted


def context(tokens: list[str], activations: list[float], peak: int) -> dict[str, object]:
    return {"tokens": tokens, "activations": activations, "peak": peak}


def test_strengths_compare_contexts_and_white_space_shows() -> None:
    words = ["a", "\n", "b"]
    first, second = highlighted([context(words, [0.0, 1.0, 0.5], 1), context(words, [2.0, 0.0, 0.0], 0)])
    assert [piece.text for piece in first] == ["a", "↵", "b"]
    assert [piece.strength for piece in first] == [0, 0.5, 0.25]
    assert [piece.peak for piece in second] == [True, False, False]
    assert second[0].strength == 1


def test_a_silent_context_has_no_strength() -> None:
    (pieces,) = highlighted([context(["a", "b"], [0.0, 0.0], 0)])
    assert {piece.strength for piece in pieces} == {0.0}
