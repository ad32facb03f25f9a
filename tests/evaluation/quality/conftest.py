"""A held-out text of a tiny model, read once."""

from __future__ import annotations

import dataclasses

import pytest

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.evaluation.quality import HeldOut

HOOKPOINT = Hookpoint("layers.1")


@pytest.fixture(scope="session")
def held_out(language_model: LanguageModel, text: TextConfig) -> HeldOut:
    """Forty documents, some longer than a context, each piece with a BOS token in front."""
    return HeldOut.read(language_model, text, HOOKPOINT, tokens=20_000)


@pytest.fixture(scope="session")
def plain(language_model: LanguageModel, text: TextConfig) -> HeldOut:
    """The same without BOS tokens."""
    return HeldOut.read(language_model, dataclasses.replace(text, bos=False), HOOKPOINT, tokens=20_000)
