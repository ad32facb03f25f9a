"""Language models of every family, tiny and random: their layers found, read and spliced under one name."""

import pytest
import torch
import transformers

import expander_sae as xs
from expander_sae.activations.harvest import harvest
from expander_sae.activations.hookpoints import blocks_of, find_hookpoints, read_activations
from expander_sae.activations.models import load_language_model
from expander_sae.errors import ExpanderError
from expander_sae.interventions import Add, attach, steer
from tests.activations.prose import write_prose

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 300, "max_position_embeddings": 64, "head_dim": 8,
         "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
GPT2 = {
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 2,
    "vocab_size": 300,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

FAMILIES = {
    "Llama": (SMALL, "layers"),
    "Mistral": (SMALL | {"sliding_window": 8}, "layers"),
    "Qwen2": (SMALL, "layers"),
    "Qwen3": (SMALL, "layers"),
    "Gemma2": (SMALL | {"sliding_window": 8}, "layers"),
    "Gemma3Text": (SMALL | {"sliding_window": 8}, "layers"),
    "Phi": (SMALL, "layers"),
    "Olmo": (SMALL, "layers"),
    "Olmo2": (SMALL, "layers"),
    "GPTNeoX": (SMALL, "layers"),
    "GPT2": (GPT2, "h"),
    "OPT": (SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 16}, "decoder.layers"),
    "Mamba": ({"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": 300, "state_size": 4}, "layers"),
    # A model of text and pictures: the layers that read text are those that are meant.
    "Gemma3": (
        {
            "text_config": SMALL | {"sliding_window": 8, "model_type": "gemma3_text"},
            "vision_config": {
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 28, "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
        },
        "language_model.layers",
    ),
}  # fmt: skip
HEADS = {"Gemma3Text": "Gemma3ForCausalLM", "Gemma3": "Gemma3ForConditionalGeneration", "GPT2": "GPT2LMHeadModel"}


@pytest.fixture(params=FAMILIES)
def loaded(request, tiny_tokenizer, tmp_path):
    """A model of the family, read from a folder as a user reads it."""
    settings, _ = FAMILIES[request.param]
    config = getattr(transformers, f"{request.param}Config")(**settings)
    head = getattr(transformers, HEADS.get(request.param, f"{request.param}ForCausalLM"))
    torch.manual_seed(0)
    head(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return request.param, load_language_model(tmp_path / "model")


def test_layers_are_found_read_and_spliced(loaded, tmp_path):
    family, language_model = loaded
    own = FAMILIES[family][1]
    model = language_model.model
    assert blocks_of(model) == own
    ids = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    found = find_hookpoints(model, ["layers.1", "layers.2:input"])
    assert [str(hookpoint) for hookpoint in found] == [f"{own}.1", f"{own}.2:input"]
    read = read_activations(model, found, ids)
    before, after = (read[hookpoint] for hookpoint in found)
    assert before.shape == (2, 9, 16)
    torch.testing.assert_close(before, after)  # what one layer hands on is what the next one gets


def test_a_dictionary_is_harvested_for_trained_evaluated_and_steered_with(loaded, tmp_path):
    family, language_model = loaded
    text = write_prose(tmp_path)
    (store,) = harvest(language_model, ["layers.1"], tokens=300, out=tmp_path / "acts", text=text).values()
    assert store.origin["hookpoint"] == f"{FAMILIES[family][1]}.1"
    config = xs.TrainConfig(n=32, d=3, k=4, objective="fidelity", tokens=512, batch=64)
    sae = xs.train(store, config, out=tmp_path / "run", progress=False).sae
    # What is not said is as in training, the hookpoint among it.
    found = xs.evaluate(sae, language_model, tokens=300)
    loss = found.language_model
    assert 0 < found.fvu.value < 1
    assert loss.kl.value > 0
    assert loss.clean.value != loss.patched.value != loss.zero.value
    feature = int(sae.encode(store[:64].activations.float()).indices[0, 0])
    steered = steer(language_model, {"layers.1": sae}, {"layers.1": [Add(feature, 1e3)]}, "The river", tokens=4)
    assert any(each.steered != each.without for each in steered.next_tokens)
    with attach(language_model, {"layers.1": sae}) as attached:
        ids = torch.arange(1, 8)[None]
        made = language_model.model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    assert attached.codes().values.shape[:2] == (1, made.shape[1] - 1)  # all but the last one were read, with a cache


def test_other_lists_of_modules_are_not_taken_for_the_blocks():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(5))
            self.stack = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
            self.config = type("Config", (), {"num_hidden_layers": 3})()

    assert blocks_of(Odd()) == "stack"
    assert blocks_of(torch.nn.Linear(2, 2)) is None
    with pytest.raises(ExpanderError, match=r"No module of the model matches 'layers\.7'"):
        find_hookpoints(Odd(), ["layers.7"])
