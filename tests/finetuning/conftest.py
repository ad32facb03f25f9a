"""A tiny language model that has learned its text, and dictionaries trained on its activations."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expander_sae import SparseAutoencoder
from expander_sae.activations.harvest import TextConfig, origin_at
from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.evaluation.text import Passage, TextActivations
from expander_sae.training import TrainConfig, train
from tests.activations.prose import write_prose
from tests.evaluation.conftest import language_model, text  # noqa: F401  (pytest finds fixtures by their names)

HOOKPOINT = Hookpoint("layers.0")


@pytest.fixture(scope="session")
def prose(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    """Two hundred documents, some of them held out."""
    folder = tmp_path_factory.mktemp("prose")
    return dataclasses.replace(write_prose(folder, documents=200), part="train", bos=True)


@pytest.fixture(scope="session")
def activations(language_model: LanguageModel, prose: TextConfig) -> TextActivations:  # noqa: F811
    """On the first tokens of the text."""
    passage = Passage.of(language_model, prose, 3000)
    return TextActivations(language_model, HOOKPOINT, passage)


@pytest.fixture(scope="session", params=["omp", "readable", "topk", "dense"])
def trained(
    request: pytest.FixtureRequest,
    activations: TextActivations,
    language_model: LanguageModel,  # noqa: F811
    prose: TextConfig,
) -> SparseAutoencoder:
    """A dictionary that has something left to learn, and knows where it comes from."""
    x = torch.cat([part.x for part in activations.parts()])
    shape = {
        "omp": {"d": 4, "objective": "fidelity"},
        "readable": {"d": 4},
        "topk": {"d": 4, "coder": "topk"},
        "dense": {},
    }[request.param]
    config = TrainConfig(n=32, k=2, tokens=64 * 8, batch=64, **shape)
    sae = train(x, config, progress=False).sae
    sae.provenance["activations"] = {
        **origin_at(language_model, HOOKPOINT, prose), "massive_above": activations.massive_above
    }  # fmt: skip
    return sae
