"""Tokens as text, whatever bytes they are made of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from expander_sae.evaluation.contexts import Context
from expander_sae.reporting.highlights import highlighted, token_texts

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30)


@settings(deadline=None, max_examples=80)
@given(text=TEXT)
def test_the_texts_of_tokens_make_up_the_text(tiny_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = token_texts(tiny_tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_a_character_of_several_tokens_belongs_to_the_last(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer("a€b", add_special_tokens=False)["input_ids"]
    assert token_texts(tiny_tokenizer, ids) == ["a", "", "", "€", "b"]


def test_strengths_compare_contexts_and_white_space_shows(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer("a\nb", add_special_tokens=False)["input_ids"]
    contexts = [Context(ids, [0.0, 1.0, 0.5], 1, 0, 0), Context(ids, [2.0, 0.0, 0.0], 0, 1, 0)]
    first, second = highlighted(tiny_tokenizer, contexts)
    assert [piece.text for piece in first] == ["a", "↵", "b"]
    assert [piece.strength for piece in first] == [0, 0.5, 0.25]
    assert [piece.peak for piece in second] == [True, False, False]
    assert second[0].strength == 1


def test_a_silent_context_has_no_strength(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer("ab", add_special_tokens=False)["input_ids"]
    (pieces,) = highlighted(tiny_tokenizer, [Context(ids, [0.0] * len(ids), 0, 0, 0)])
    assert {piece.strength for piece in pieces} == {0.0}
