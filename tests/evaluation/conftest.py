"""A tiny language model that has learned its text, so that ruining its activations costs something."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import LanguageModel, load_language_model
from expander_sae.activations.texts import batches_by_length, documents, tokenise
from tests.activations.prose import write_prose


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    """Forty documents, with a BOS token in front of every piece."""
    return dataclasses.replace(write_prose(tmp_path_factory.mktemp("text")), bos=True)


@pytest.fixture(scope="session")
def language_model(tiny_model_folder: Path, text: TextConfig) -> LanguageModel:
    loaded = load_language_model(tiny_model_folder, device="cpu")
    model = copy.deepcopy(loaded.model).requires_grad_(True).train()
    pieces = tokenise(documents(text.text, part="all"), loaded.tokenizer, context=text.context, bos=text.bos)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for batch in list(batches_by_length(pieces, 512)) * 8:
        labels = torch.where(batch.mask, batch.ids, -100)
        model(input_ids=batch.ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return dataclasses.replace(loaded, model=model.eval().requires_grad_(False))
