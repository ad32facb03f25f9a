"""Tokens as text, whatever bytes they are made of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from expander_sae.activations.texts.spelling import Spelling

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30)


@settings(deadline=None, max_examples=80)
@given(text=TEXT)
def test_the_texts_of_tokens_make_up_the_text(tiny_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = Spelling(tiny_tokenizer).of(ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_a_character_of_several_tokens_belongs_to_the_last(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer("a€b", add_special_tokens=False)["input_ids"]
    spelling = Spelling(tiny_tokenizer)
    assert spelling.of(ids) == ["a", "", "", "€", "b"]
    assert [spelling.is_whole(token) for token in ids] == [True, False, False, False, True]


def test_a_cut_character_is_not_lost(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """A context may begin or end inside a character."""
    ids = tiny_tokenizer("€b", add_special_tokens=False)["input_ids"]
    assert "".join(Spelling(tiny_tokenizer).of(ids[1:])).endswith("b")
    assert len(Spelling(tiny_tokenizer).of(ids[:2])) == 2
