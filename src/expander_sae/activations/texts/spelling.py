"""What every token adds to a text, also where a character is made of several tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

_UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are no whole character


class Decoder(Protocol):
    """What is asked of a tokenizer; those of transformers have it."""

    def decode(self, token_ids: list[int], *, clean_up_tokenization_spaces: bool) -> str: ...


class Spelling:
    """The texts of tokens, each kind of token decoded once."""

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._alone: dict[int, str] = {}

    def of(self, token_ids: Sequence[int]) -> list[str]:
        """What every token of a text adds to it; a character made of several tokens belongs to the last of them."""
        texts = list[str]()
        for whole, tokens in groupby(token_ids, self.is_whole):
            run = list(tokens)
            texts += map(self.alone, run) if whole else self._in_order(run)
        return texts

    def alone(self, token: int) -> str:
        """What a token adds to a text, as far as it can be said without its neighbours."""
        if token not in self._alone:
            # Some decoders take away the space in front of the first token; so it comes behind another one.
            two = self._decoded([token, token])
            half = two[: len(two) // 2]
            if two != half + half:
                one = self._decoded([token])
                half = two.removeprefix(one) if two.startswith(one) else one
            self._alone[token] = half
        return self._alone[token]

    def is_whole(self, token: int) -> bool:
        """Whether the token is made of whole characters, so that its text does not depend on its neighbours."""
        return _UNFINISHED not in self.alone(token)

    def _in_order(self, token_ids: Sequence[int]) -> list[str]:
        """The same for tokens of which none is whole."""
        texts, before = list[str](), ""
        for end in range(1, len(token_ids) + 1):
            whole = self._decoded(token_ids[:end])
            finished = whole if end == len(token_ids) else whole.rstrip(_UNFINISHED)
            texts.append(finished[len(before) :])
            before = finished if len(finished) > len(before) else before
        return texts

    def _decoded(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)
