"""Harvesting with a tiny model: the stored numbers are the model's, whatever happens on the way."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch

from expander_sae import ExpanderError
from expander_sae.activations.harvest import harvest
from expander_sae.activations.models import load_language_model
from expander_sae.activations.store import Store
from tests.activations.prose import write_prose


@pytest.fixture
def language_model(tiny_model_folder):
    return load_language_model(tiny_model_folder, device="cpu")


@pytest.fixture
def text(tmp_path):
    return write_prose(tmp_path)


def same(one, other):
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))


def test_the_store_holds_what_the_model_computes(language_model, text, tmp_path):
    store = harvest(language_model, ["layers.1"], tokens=500, out=tmp_path / "acts", text=text)["layers.1"]
    tokens = store[0:500]
    assert (store.tokens, store.width) == (500, 16)
    assert store.origin["hookpoint"] == "layers.1"
    assert store.origin["bos"] is False
    # Rebuild every piece from its ids, and compare with a forward pass of that piece alone.
    starts = (tokens.position % 32 == 0).nonzero()[:, 0].tolist()
    for start, stop in pairwise([*starts, 500]):
        ids = tokens.token_ids[start:stop].long()[None]
        states = language_model.model(input_ids=ids, output_hidden_states=True).hidden_states[2][0]
        torch.testing.assert_close(tokens.activations[start:stop].float(), states, atol=2e-3, rtol=2e-3)


def test_several_hookpoints_in_one_pass(language_model, text, tmp_path):
    stores = harvest(language_model, ["layers.0", "layers.1.mlp:input"], tokens=300, out=tmp_path / "acts", text=text)
    assert set(stores) == {"layers.0", "layers.1.mlp:input"}
    assert sorted(path.name for path in (tmp_path / "acts").iterdir()) == ["layers.0", "layers.1.mlp-input"]
    first, second = (store[0:300] for store in stores.values())
    assert torch.equal(first.token_ids, second.token_ids)
    assert not torch.equal(first.activations, second.activations)


@pytest.mark.parametrize("killed_at", [150, 260, 420])
def test_a_killed_harvest_goes_on_without_loss_or_duplication(language_model, text, tmp_path, killed_at):
    arguments = {"tokens": 600, "text": text, "tokens_per_shard": 100}
    whole = harvest(language_model, ["layers.[01]"], out=tmp_path / "whole", **arguments)

    def kill(stored):
        if stored >= killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harvest(language_model, ["layers.[01]"], out=tmp_path / "killed", report=kill, **arguments)
    resumed_from = []
    resumed = harvest(language_model, ["layers.[01]"], out=tmp_path / "killed", report=resumed_from.append, **arguments)
    assert 0 < resumed_from[0] <= killed_at
    for name, store in whole.items():
        assert same(resumed[name][0:600], store[0:600])


def test_a_text_that_ends_early_gives_what_it_has(language_model, text, tmp_path):
    store = harvest(language_model, ["layers.1"], tokens=10**6, out=tmp_path / "acts", text=text)["layers.1"]
    assert 500 < store.tokens < 10**6
    assert Store.open(tmp_path / "acts").complete
    assert store.documents == 40


def test_bos_is_in_front_of_every_piece(language_model, text, tmp_path):
    with_bos = dataclasses.replace(text, bos=True)
    store = harvest(language_model, ["layers.1"], tokens=400, out=tmp_path / "acts", text=with_bos)["layers.1"]
    tokens = store[0:400]
    assert (tokens.token_ids[tokens.position % 32 == 0] == language_model.tokenizer.bos_token_id).all()


def test_another_text_cannot_go_on_with_a_store(language_model, text, tmp_path):
    harvest(language_model, ["layers.1"], tokens=200, out=tmp_path / "acts", text=text)
    with pytest.raises(ExpanderError, match="context"):
        harvest(
            language_model, ["layers.1"], tokens=300, out=tmp_path / "acts", text=dataclasses.replace(text, context=16)
        )


def spoil(language_model, value):
    """A model that gives `value` for the last token of the text "bridge"."""
    bad = language_model.tokenizer("The river and the bridge", add_special_tokens=False)["input_ids"][-1]
    language_model.model.get_input_embeddings().weight.data[bad] = value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), r"At layers\.0: .* token \d+ .* of document \d+\) has NaN"),
        (3e5, r"At layers\.0: .*--dtype bfloat16"),
    ],
)
def test_what_cannot_be_stored_is_named(tiny_model_folder, text, tmp_path, value, sentence):
    language_model = load_language_model(tiny_model_folder, device="cpu")
    spoil(language_model, value)
    with pytest.raises(ExpanderError, match=sentence):
        harvest(language_model, ["layers.0"], tokens=600, out=tmp_path / "acts", text=text, dtype="float16")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"dtype": "float8"}, "dtype must be float16 or bfloat16"),
        ({"tokens": 10**15}, "free"),
    ],
)
def test_impossible_requests_write_nothing(language_model, text, tmp_path, change, sentence):
    with pytest.raises(ExpanderError, match=sentence):
        harvest(language_model, ["layers.1"], **({"tokens": 9, "out": tmp_path / "acts", "text": text} | change))
    assert not (tmp_path / "acts").exists()


def test_a_context_longer_than_the_models_is_refused(language_model, text, tmp_path):
    with pytest.raises(ExpanderError, match="longer than the 64"):
        harvest(
            language_model, ["layers.1"], tokens=9, out=tmp_path / "acts", text=dataclasses.replace(text, context=65)
        )
