"""Patterns say what a feature fires on, and their scores are those of the half that they were not learned from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from expander_sae.evaluation.quality import HeldOut
from expander_sae.evaluation.quality.held_out import Text
from expander_sae.evaluation.quality.patterns import Explainer, written
from expander_sae.evaluation.quality.predictions import Predictions


def text_of(ids: NDArray[np.int64], piece: int = 20) -> HeldOut:
    """A text of these tokens, which are written as letters, in pieces of so many."""
    count = len(ids)
    text = Text(
        ids=ids,
        document=np.arange(count) // piece,
        piece=np.arange(count) // piece,
        position=np.arange(count) % piece,
        spans=np.zeros((count, 2), dtype=np.int64),
        documents=[],
        spelled={number: f" {chr(97 + number)}" for number in range(26)},
    )
    return HeldOut(
        text, np.arange(count), torch.zeros(count, 1), Predictions(torch.zeros(1, 1), torch.zeros(1, 1)), 1.0
    )


def some_text(seed: int, kinds: int = 5, count: int = 4000) -> HeldOut:
    return text_of(np.random.default_rng(seed).integers(0, kinds, count))


def test_a_feature_that_fires_on_a_token_is_that_token() -> None:
    held_out = some_text(0)
    learn, fires = held_out.document % 2 == 0, held_out.text.ids == 3
    found = Explainer(held_out, learn).explain(np.flatnonzero(fires), np.ones(fires.sum()))
    assert found.precision == found.recall == found.f1 == 1.0
    assert [written(pattern, held_out) for pattern in found.patterns] == [" d"]
    assert found.patterns[0].found == (fires & learn).sum()


def test_a_feature_that_fires_behind_a_token_has_a_wildcard_at_its_end() -> None:
    held_out = some_text(1)
    ids, place = held_out.text.ids, np.arange(4000)
    fires = (place % 20 > 1) & (np.roll(ids, 1) == 2) & (np.roll(ids, 2) == 4)
    found = Explainer(held_out, held_out.document % 2 == 0).explain(np.flatnonzero(fires), np.ones(fires.sum()))
    assert found.f1 == 1.0
    assert [written(pattern, held_out) for pattern in found.patterns] == [" e c *"]


def test_patterns_do_not_look_into_the_piece_before() -> None:
    held_out = text_of(np.zeros(4000, dtype=np.int64), piece=5)
    fires = np.arange(4000) % 5 == 4
    found = Explainer(held_out, held_out.document % 2 == 0).explain(np.flatnonzero(fires), np.ones(800))
    assert found.f1 == 0.0  # three tokens back there is one in two places of the piece
    fires = np.arange(4000) % 5 == 0
    found = Explainer(held_out, held_out.document % 2 == 0).explain(np.flatnonzero(fires), np.ones(800))
    assert found.f1 == 1.0  # nothing is before the first


def test_a_feature_that_fires_at_random_is_not_explained() -> None:
    held_out = some_text(2, kinds=20)
    fires = np.random.default_rng(3).random(4000) < 0.05
    found = Explainer(held_out, held_out.document % 2 == 0).explain(np.flatnonzero(fires), np.ones(fires.sum()))
    assert found.f1 < 0.15


def test_a_feature_that_is_on_half_the_time_is_foretold_by_nothing() -> None:
    held_out = some_text(5)
    fires = np.random.default_rng(6).random(4000) < 0.5
    found = Explainer(held_out, held_out.document % 2 == 0).explain(np.flatnonzero(fires), np.ones(fires.sum()))
    assert not found.patterns
    assert found.f1 == 0


def test_a_feature_that_is_silent_in_one_half() -> None:
    held_out = some_text(4)
    learn = held_out.document % 2 == 0
    known, unseen = (np.flatnonzero((held_out.text.ids == 3) & half) for half in (learn, ~learn))
    explainer = Explainer(held_out, learn)
    only_known, only_unseen = (explainer.explain(tokens, np.ones(len(tokens))) for tokens in (known, unseen))
    assert only_known.precision == 0
    assert np.isnan(only_known.recall)
    assert np.isnan(only_known.f1)
    assert not only_unseen.patterns
    assert np.isnan(only_unseen.precision)
    assert only_unseen.recall == only_unseen.f1 == 0


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=15)
def test_scores_are_what_the_patterns_say(seed: int) -> None:
    generator = np.random.default_rng(seed)
    held_out = some_text(seed, kinds=4, count=600)
    learn, ids, piece = held_out.document % 2 == 0, held_out.text.ids, held_out.text.piece
    fires = (generator.random(600) < 0.1) | ((ids == 1) & (np.roll(ids, 2) == 0))
    strength = generator.random(600) * fires
    found = Explainer(held_out, learn).explain(np.flatnonzero(fires), strength[fires])

    def fits(place: int) -> bool:
        return any(
            all(
                (place - back >= 0 and piece[place - back] == piece[place])
                == (pattern.example - back >= 0 and piece[pattern.example - back] == piece[pattern.example])
                and (piece[max(0, place - back)] != piece[place] or ids[place - back] == ids[pattern.example - back])
                for back in pattern.shape
            )
            for pattern in found.patterns
        )

    fitting = np.array([fits(place) for place in range(600)]) & ~learn
    if fitting.any():
        assert found.precision == pytest.approx(fires[fitting].mean())
    assert found.recall == pytest.approx(strength[fitting].sum() / strength[~learn].sum())
    assert dataclasses.replace(found, precision=0.5, recall=0.25).f1 == pytest.approx(1 / 3)
