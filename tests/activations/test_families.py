"""Language models of every family, tiny and random: their layers found, read and spliced under one name."""

import pytest
import torch
import transformers

import expander_sae as xs
from expander_sae.activations.harvest import harvest
from expander_sae.activations.hookpoints import blocks_of, find_hookpoints, read_activations
from expander_sae.activations.models import load_language_model
from expander_sae.errors import ExpanderError
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
}
HEADS = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}


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
    stores = harvest(language_model, ["layers.1"], tokens=300, out=tmp_path / "acts", text=write_prose(tmp_path))
    assert list(stores) == [f"{own}.1"]
    sae = xs.SparseAutoencoder(xs.DenseDictionary(16, 32), xs.TopK(4))
    with sae.attach(model, "layers.1", keep_error=False), torch.no_grad():
        spliced = model(input_ids=ids).logits
    assert not torch.allclose(spliced, model(input_ids=ids).logits)


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
