"""What the page may ask for, checked, and the answers of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.models import LanguageModel
from expander_sae.activations.texts.spelling import Spelling
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError
from expander_sae.features import FeatureDatabase
from expander_sae.interventions import Edit, Kind, attach, edit_in_units, steer
from expander_sae.interventions.hooks import changing, hookpoint_named
from expander_sae.interventions.steering import prompt_ids

MOST_TEXT = 20_000
"""Characters of a text or prompt."""
MOST_TOKENS = 400
"""Tokens that one request may have written."""


@dataclass(frozen=True)
class Live:
    """A dictionary and the language model that it is about."""

    database: FeatureDatabase
    sae: SparseAutoencoder
    language_model: LanguageModel
    hookpoint: str

    @cached_property
    def spelling(self) -> Spelling:
        """The texts of the model's tokens, each decoded once."""
        return Spelling(self.language_model.tokenizer)

    def encode(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The tokens of a text with the features that fire on each: value, rank of the pick, share explained."""
        ids = prompt_ids(self.language_model, _text(asked, "text"))
        model, kept = self.language_model.model, list[Tensor]()

        def keep(x: Tensor) -> Tensor:
            kept.append(x)
            return x

        with (
            torch.no_grad(),
            changing(model.base_model, hookpoint_named(model, self.hookpoint), keep),
            attach(self.language_model, {self.hookpoint: self.sae}) as attached,
        ):
            model.base_model(input_ids=ids, use_cache=False)
            codes = attached.codes()[0]
            shares = shares_of(self.sae, kept[0][0].float(), codes)
        tokens = []
        for place, text in enumerate(self.spelling.of(ids[0].tolist())):
            features = [
                {"feature": feature, "value": value, "rank": rank, "share": share}
                for rank, (feature, value, share) in enumerate(
                    zip(
                        codes.indices[place].tolist(), codes.values[place].tolist(), shares[place].tolist(), strict=True
                    )
                )
                if value != 0
            ]
            tokens.append({"text": text, "features": features, "massive": not features})
        return {"tokens": tokens}

    def steer(self, asked: Mapping[str, Any], listen: Callable[[str, str], bool | None]) -> dict[str, Any]:
        """What the model writes without and with the edits; tells `listen` as it comes."""
        prompt = _text(asked, "prompt")
        length = prompt_ids(self.language_model, prompt).shape[1]
        edits = [self._edit(each, length) for each in _list(asked, "edits")]
        found = steer(
            self.language_model, {self.hookpoint: self.sae}, {self.hookpoint: edits}, prompt,
            tokens=int(_number(asked, "tokens", 1, MOST_TOKENS)), temperature=_number(asked, "temperature", 0, 10),
            seed=int(_number(asked, "seed", 0, 2**53)), listen=listen,
        )  # fmt: skip
        return {"next_tokens": [vars(each) for each in found.next_tokens]}

    def _edit(self, asked: Any, length: int) -> Edit:
        """An edit in units of the feature's own largest activation."""
        if not isinstance(asked, Mapping) or asked.get("kind") not in get_args(Kind):
            raise ExpanderError(f"An edit is one of {', '.join(get_args(Kind))}.")
        feature = int(_number(asked, "feature", 0, self.sae.n - 1))
        positions = slice(length, None) if asked.get("from") == "generated" else None
        return edit_in_units(
            asked["kind"],
            feature,
            _number(asked, "strength", -1e6, 1e6),
            float(self.database.largest[feature]),
            positions,
        )


def shares_of(sae: SparseAutoencoder, x: Float[Tensor, "tokens m"], codes: Codes) -> Float[Tensor, "tokens k"]:
    """How much of a token's squared norm, centred, is left unexplained when one feature is taken out of its codes."""
    centred = x * sae.scale - sae.pre_bias
    residual = centred - sae.dictionary.synthesize(codes)
    along = sae.dictionary.correlate_at(residual, codes.indices)
    sizes = sae.dictionary.norms()[codes.indices]
    return (2 * codes.values * along + (codes.values * sizes).square()) / centred.square().sum(dim=-1, keepdim=True)


def _text(asked: Mapping[str, Any], name: str) -> str:
    """A text that is not too long."""
    text = asked.get(name)
    if not isinstance(text, str):
        raise ExpanderError(f"The request needs a text, {name}.")
    if len(text) > MOST_TEXT:
        raise ExpanderError(f"The text has {len(text):,} characters; at most {MOST_TEXT:,} are read.")
    return text


def _list(asked: Mapping[str, Any], name: str) -> list[Any]:
    found = asked.get(name)
    if not isinstance(found, list):
        raise ExpanderError(f"The request needs a list, {name}.")
    return found


def _number(asked: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """A finite number between these."""
    number = asked.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < math.inf:
        raise ExpanderError(f"The request needs a number, {name}.")
    if not low <= number <= high:
        raise ExpanderError(f"{name} must be from {low:g} to {high:g}, not {number if abs(number) < 1e15 else 'that'}.")
    return float(number)
