"""A tiny language model that predicts something, and a dictionary for its middle."""

from __future__ import annotations

import pytest
import torch

import expander_sae as xs
from expander_sae.activations.models import LanguageModel
from tests.evaluation.conftest import language_model, text  # noqa: F401  # the model that has learned its text

M, N, K = 16, 40, 5


def dictionary(seed: int = 0, coder: xs.coders.base.Coder | None = None) -> xs.SparseAutoencoder:
    torch.manual_seed(seed)
    sae = xs.SparseAutoencoder(
        xs.ExpanderDictionary(xs.Support.make("uniform", m=M, n=N, d=4, seed=seed)), coder or xs.OMP(k=K)
    )
    torch.nn.init.normal_(sae.pre_bias, std=0.1)
    sae.scale.fill_(1.7)
    return sae.requires_grad_(False)


@pytest.fixture(scope="session")
def sae() -> xs.SparseAutoencoder:
    return dictionary()


@pytest.fixture
def ids(language_model: LanguageModel) -> torch.Tensor:  # noqa: F811
    return language_model.tokenizer("The sun had just risen above the hills", return_tensors="pt")["input_ids"]
