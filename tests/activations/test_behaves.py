"""What a model needs is done by default: BOS as its tokenizer does it, a dtype that is large enough, a warning."""

import copy
import dataclasses

import pytest
import torch

from expander_sae.activations import soundness as module
from expander_sae.activations.harvest import TextConfig, harvest, text_pieces
from expander_sae.activations.massive import MassiveTokens
from expander_sae.activations.models import load_language_model
from expander_sae.activations.soundness import soundness
from expander_sae.activations.store import Store
from expander_sae.activations.texts import puts_bos
from tests.activations.prose import write_prose
from tests.activations.stores import harvest as pretended


@pytest.fixture
def language_model(tiny_model, tiny_tokenizer, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return load_language_model(tmp_path / "model")


@pytest.fixture
def beginning(language_model):
    """The same model with a tokenizer that puts BOS in front by itself."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(language_model.tokenizer)
    bos = ("<bos>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    return dataclasses.replace(language_model, tokenizer=tokenizer)


def test_bos_is_put_where_the_tokenizer_puts_it(language_model, beginning, tmp_path):
    text = write_prose(tmp_path)
    assert (puts_bos(language_model.tokenizer), puts_bos(beginning.tokenizer)) == (False, True)
    bos = beginning.tokenizer.bos_token_id
    assert next(text_pieces(beginning, text)).ids[0] == bos != next(text_pieces(language_model, text)).ids[0]
    for wanted in (True, False):
        said = dataclasses.replace(text, bos=wanted)
        for model in (language_model, beginning):
            assert (next(text_pieces(model, said)).ids[0] == bos) == wanted


def test_a_store_says_whether_there_is_bos(beginning, tmp_path):
    (store,) = harvest(beginning, ["layers.1"], tokens=200, out=tmp_path / "a", text=write_prose(tmp_path)).values()
    assert store.manifest.origin["bos"] is True
    again = harvest(beginning, ["layers.1"], tokens=300, out=tmp_path / "a",
                    text=dataclasses.replace(write_prose(tmp_path), bos=True))  # fmt: skip
    assert again["layers.1"].tokens == 300


@pytest.mark.parametrize(("factor", "dtype"), [(1.0, torch.float16), (1e9, torch.bfloat16)])
def test_large_activations_are_kept_in_bfloat16(language_model, factor, dtype, tmp_path):
    model = copy.deepcopy(language_model.model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(factor)
    large, text = dataclasses.replace(language_model, model=model), write_prose(tmp_path)
    (store,) = harvest(large, ["layers.1"], tokens=200, out=tmp_path / "acts", text=text).values()
    assert store.dtype == dtype
    assert store[:200].activations.isfinite().all()
    # A harvest goes on in what it began with, whatever the first batch would say now.
    harvest(language_model, ["layers.1"], tokens=300, out=tmp_path / "acts", text=text)
    assert Store.open(tmp_path / "acts").dtype == dtype


def test_a_model_that_is_worse_than_counting_is_told(language_model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MEASURED", 100)
    text = write_prose(tmp_path)
    found = soundness(language_model, text)
    assert found.bigram < 3 < found.model  # random weights, and the same words again and again
    assert "without BOS, and a table of which token follows which" in str(found.warning)
    assert "(--bos True)" in str(found.warning)
    assert dataclasses.replace(found, model=found.bigram).warning is None


def test_a_bigram_table_is_a_distribution(language_model, tmp_path):
    table = module._Bigrams(text_pieces(language_model, write_prose(tmp_path)), 300, bos=False)
    for before in (table._pairs.most_common(1)[0][0][0], 299):
        total = sum(torch.tensor(-table.nats(before, token)).exp().item() for token in range(300))
        assert total == pytest.approx(1, abs=1e-4)


def test_text_config_says_nothing_about_bos_by_itself():
    assert TextConfig().bos is None


def test_massive_tokens_are_told_apart(language_model, tmp_path):
    store = Store.open(pretended(tmp_path / "acts"))
    found = MassiveTokens.of(store)  # the first token of every fourth document is massive
    assert (found.beginnings, found.others) == (7, {})
    assert found.described(language_model.tokenizer) == ("7 massive tokens (norm above 4 medians): 7 begin a piece")
    others = dataclasses.replace(found, beginnings=1000, others={1: 3, 2: 2, 3: 1, 4: 1})
    names = ", ".join(f"{language_model.tokenizer.decode([token])!r} {others.others[token]}" for token in (1, 2, 3))
    assert others.described(language_model.tokenizer) == (
        f"1,007 massive tokens (norm above 4 medians): 1,000 begin a piece, others are {names}"
    )
    assert MassiveTokens(0, {}).described(None) == "0 massive tokens (norm above 4 medians)"
