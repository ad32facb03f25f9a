"""Pieces hold every token once, batches hold every piece once, and both always come out the same."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from expander_sae.activations.texts import Document, TokenisedDocument, batches_by_length, tokenise
from expander_sae.activations.texts.tokens import WINDOW
from expander_sae.errors import ExpanderError

BOS = 999


class LettersAsTokens:
    """A tokenizer that can be checked by eye: one token for each letter."""

    bos_token_id = BOS

    def __call__(self, text: list[str], *, add_special_tokens: bool, verbose: bool) -> Any:
        assert not add_special_tokens
        return {"input_ids": [[ord(letter) for letter in one] for one in text]}


TEXTS = st.lists(st.text("abc", max_size=40), min_size=1, max_size=150)


@given(TEXTS, st.integers(3, 12), st.booleans())
@settings(deadline=None, max_examples=60)
def test_pieces_hold_every_token_once(texts: list[str], context: int, bos: bool) -> None:
    pieces = tokenise((Document(text, "x") for text in texts), LettersAsTokens(), context=context, bos=bos)
    if max(map(len, texts)) < 2:
        with pytest.raises(ExpanderError, match="has 2 tokens"):
            list(pieces)
        return
    texts_found = [""] * len(texts)
    for piece in pieces:
        assert 2 + bos <= len(piece.ids) <= context
        assert (piece.ids[0] == BOS) == bos
        assert piece.start % context == 0
        assert piece.start // context * (context - bos) == len(texts_found[piece.document])
        texts_found[piece.document] += "".join(map(chr, piece.ids[bos:]))
    skipped = 0
    for text, found in zip(texts, texts_found, strict=True):
        tail = len(text) % (context - bos)
        lost = text == "" or tail == 1
        skipped += lost
        assert found == (text[:-1] if lost else text)
    assert pieces.skipped == skipped


def test_no_special_tokens_unless_asked(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "the old wooden bridge"
    (without,) = tokenise([Document(text, "x")], tiny_tokenizer, context=64, bos=False)
    (with_bos,) = tokenise([Document(text, "x")], tiny_tokenizer, context=64, bos=True)
    assert tiny_tokenizer.decode(without.ids) == text
    assert with_bos.ids == [tiny_tokenizer.bos_token_id, *without.ids]


def test_documents_are_numbered_without_gaps_however_many_are_tokenised_together() -> None:
    pieces = tokenise((Document("abc", "x") for _ in range(200)), LettersAsTokens(), context=4, bos=False)
    assert [piece.document for piece in pieces] == list(range(200))


def test_documents_are_read_only_as_needed() -> None:
    endless = (Document("abcdef", "x") for _ in itertools.count())
    assert next(tokenise(endless, LettersAsTokens(), context=4, bos=False)) == TokenisedDocument(
        [97, 98, 99, 100], 0, 0
    )


def test_bad_requests() -> None:
    without_bos = SimpleNamespace(bos_token_id=None)
    with pytest.raises(ExpanderError, match="no token that begins a sequence"):
        tokenise([], without_bos, context=8, bos=True)  # type: ignore[arg-type]
    with pytest.raises(ExpanderError, match="at least 3 tokens, not 2"):
        tokenise([], LettersAsTokens(), context=2, bos=True)
    with pytest.raises(ExpanderError, match="at least 1 token"):
        batches_by_length([], 0)
    with pytest.raises(ExpanderError, match="does not fit a batch of 3"):
        list(batches_by_length([TokenisedDocument([1, 2, 3, 4], 0, 0)], 3))


PIECES = st.lists(st.integers(2, 30), max_size=300).map(
    lambda lengths: [
        TokenisedDocument([1 + (number + step) % 50 for step in range(length)], number, 30 * (number % 3))
        for number, length in enumerate(lengths)
    ]
)


@given(PIECES, st.integers(30, 120))
@settings(deadline=None, max_examples=60)
def test_batches_hold_every_piece_once(pieces: list[TokenisedDocument], budget: int) -> None:
    batches = list(batches_by_length(pieces, budget))
    found = []
    for batch in batches:
        assert batch.ids.numel() <= budget
        assert batch.ids.shape == batch.mask.shape == batch.position.shape
        assert not batch.ids[~batch.mask].any()
        assert batch.mask[:, 0].all()
        for row, document in enumerate(batch.document.tolist()):
            length = int(batch.mask[row].sum())
            assert batch.mask[row, :length].all()
            start = int(batch.position[row, 0])
            assert batch.position[row].tolist() == list(range(start, start + batch.ids.shape[1]))
            found.append(TokenisedDocument(batch.ids[row, :length].tolist(), document, start))
    assert sorted(found, key=lambda piece: piece.document) == pieces
    assert sum(batch.tokens for batch in batches) == sum(len(piece.ids) for piece in pieces)
    again = list(batches_by_length(iter(pieces), budget))
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(batches, again, strict=True))


def test_little_padding_and_a_bounded_window() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 129, (3000,), generator=generator).tolist()
    taken = 0

    def pieces() -> Any:
        nonlocal taken
        for number, length in enumerate(lengths):
            taken += length
            yield TokenisedDocument([1] * length, number, 0)

    tokens = positions = 0
    for batch in batches_by_length(pieces(), 1024):
        assert taken - tokens <= WINDOW * 1024 + 128
        tokens += batch.tokens
        positions += batch.ids.numel()
    assert tokens == sum(lengths)
    assert positions < 1.1 * tokens


def test_padding_does_not_reach_the_tokens(tiny_model: LlamaForCausalLM) -> None:
    """What Batch promises: a causal model gives the tokens of a short piece the same logits without a mask."""
    short, long = TokenisedDocument([5, 6, 7], 0, 0), TokenisedDocument([8, 9, 10, 11, 12, 13], 1, 0)
    (batch,) = batches_by_length([short, long], 12)
    row = batch.document.tolist().index(0)
    alone = tiny_model(torch.tensor([short.ids])).logits[0]
    torch.testing.assert_close(tiny_model(batch.ids).logits[row, :3], alone)
