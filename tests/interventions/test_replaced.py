"""Activations put in place of the model's own: the same logits, however much of the model is computed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from expander_sae import ExpanderError
from expander_sae.activations.hookpoints import find_hookpoints, read_activations
from expander_sae.interventions.replaced import PatchedModel

IDS = torch.arange(2, 22).reshape(2, 10)
SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
ARCHITECTURES = {
    "llama": ({"intermediate_size": 32, "num_key_value_heads": 1}, "layers"),
    "gemma2": ({"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}, "layers"),
    "gpt_neox": ({"intermediate_size": 32}, "layers"),
    "gpt2": ({"n_inner": 32, "bos_token_id": 0, "eos_token_id": 0}, "h"),
    "falcon": ({}, "h"),
    "bloom": ({}, "h"),
}
RUN_WHOLE = {"bloom"}
"""Its blocks give their attention too, so that it cannot be known that they may be skipped."""


def built(language_model, architecture):
    options, blocks = ARCHITECTURES[architecture]
    torch.manual_seed(1)
    config = AutoConfig.for_model(architecture, **SIZES, **options)
    return dataclasses.replace(language_model, model=AutoModelForCausalLM.from_config(config).eval()), blocks


def patched(language_model, name):
    """The model patched at a hookpoint, checked with its own activations there, and these."""
    hookpoint = find_hookpoints(language_model.model, [name])[0]
    activations = read_activations(language_model.model, [hookpoint], IDS)[hookpoint]
    model = PatchedModel(language_model, hookpoint)
    with torch.no_grad():
        clean = language_model.model(input_ids=IDS).logits
    torch.testing.assert_close(model.logits(IDS, activations), clean)
    return model, activations


def hooked(language_model, name, activations):
    """The logits of the whole model with these activations in place, by a hook that knows where they belong."""
    module = language_model.model.base_model.get_submodule(name)
    handle = module.register_forward_hook(
        lambda _, __, output: (activations, *output[1:]) if isinstance(output, tuple) else activations
    )
    with torch.no_grad():
        logits = language_model.model(input_ids=IDS).logits
    handle.remove()
    return logits


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_blocks_are_skipped_where_that_is_known_to_change_nothing(language_model, architecture):
    language_model, blocks = built(language_model, architecture)
    for block in range(3):
        model, activations = patched(language_model, f"{blocks}.{block}")
        assert len(model.skipped) == (0 if architecture in RUN_WHOLE else block + 1)
        for new in (0.5 * activations, torch.zeros_like(activations)):
            expected = hooked(language_model, f"{blocks}.{block}", new)
            torch.testing.assert_close(model.logits(IDS, new), expected)


@pytest.mark.parametrize("name", ["layers.1.mlp", "layers.0.self_attn", "layers.2.input_layernorm", "norm"])
def test_inside_a_block_the_whole_model_runs(language_model, name):
    language_model, _ = built(language_model, "llama")
    model, activations = patched(language_model, name)
    assert not model.skipped
    torch.testing.assert_close(model.logits(IDS, -activations), hooked(language_model, name, -activations))


def test_inputs_are_replaced_too(language_model):
    language_model, _ = built(language_model, "llama")
    model, activations = patched(language_model, "layers.1:input")
    assert len(model.skipped) == 1
    torch.testing.assert_close(model.logits(IDS, -activations), hooked(language_model, "layers.0", -activations))
    model, activations = patched(language_model, "layers.1.mlp:input")
    assert not model.skipped
    expected = hooked(language_model, "layers.1.post_attention_layernorm", -activations)
    torch.testing.assert_close(model.logits(IDS, -activations), expected)
    # The attention gets its input by name.
    model, activations = patched(language_model, "layers.2.self_attn:input")
    expected = hooked(language_model, "layers.2.input_layernorm", -activations)
    torch.testing.assert_close(model.logits(IDS, -activations), expected)


def test_gradients_flow_to_the_activations(language_model):
    language_model, _ = built(language_model, "llama")
    model, activations = patched(language_model, "layers.0")
    activations = activations.clone().requires_grad_(True)
    model.logits(IDS, activations)[0, 3].square().sum().backward()
    assert activations.grad[0, :4].any(dim=-1).all()
    assert not activations.grad[1].any()
    assert not activations.grad[0, 4:].any()


def test_the_model_is_left_as_it_was(language_model):
    language_model, _ = built(language_model, "llama")
    modules = list(language_model.model.modules())
    before = [(vars(module).keys(), len(module._forward_hooks), len(module._forward_pre_hooks)) for module in modules]
    model, activations = patched(language_model, "layers.1")
    with pytest.raises(RuntimeError):
        model.logits(IDS, activations[..., :3])
    after = [(vars(module).keys(), len(module._forward_hooks), len(module._forward_pre_hooks)) for module in modules]
    assert after == before


def test_a_forward_of_somebody_elses_stays(language_model):
    language_model, _ = built(language_model, "llama")
    block = language_model.model.base_model.layers[0]
    block.forward = forward = block.forward
    patched(language_model, "layers.1")
    assert vars(block)["forward"] is forward


def test_nothing_is_skipped_where_later_blocks_need_earlier_ones(language_model):
    """As in models that give the values of the first block to all others."""
    language_model, _ = built(language_model, "llama")
    layers, kept = language_model.model.base_model.layers, []
    layers[0].register_forward_hook(lambda _, __, output: kept.append(output))
    layers[2].register_forward_hook(lambda _, __, output: output + kept.pop())
    hookpoint = find_hookpoints(language_model.model, ["layers.1"])[0]
    activations = read_activations(language_model.model, [hookpoint], IDS)[hookpoint]
    model = PatchedModel(language_model, hookpoint)
    kept.clear()
    model.logits(IDS, activations)
    assert not model.skipped
    torch.testing.assert_close(model.logits(IDS, -activations), hooked(language_model, "layers.1", -activations))


def test_a_module_that_is_used_twice_cannot_be_patched(language_model):
    language_model, _ = built(language_model, "llama")
    layers = language_model.model.base_model.layers
    layers[2] = layers[1]
    hookpoint = find_hookpoints(language_model.model, ["layers.1"])[0]
    activations = read_activations(language_model.model, [hookpoint], IDS)[hookpoint]
    with pytest.raises(ExpanderError, match="changes its predictions"):
        PatchedModel(language_model, hookpoint).logits(IDS, activations)
