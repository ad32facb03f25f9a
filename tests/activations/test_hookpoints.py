"""Where activations are read, and that nothing behind the last place is computed."""

from __future__ import annotations

import pytest
import torch

from expander_sae import ExpanderError
from expander_sae.activations.hookpoints import Hookpoint, find_hookpoints, read_activations


def names(model, *patterns):
    return [str(hookpoint) for hookpoint in find_hookpoints(model, patterns)]


def test_patterns_find_modules_in_model_order(tiny_model):
    assert names(tiny_model, "layers.1") == ["layers.1"]
    assert names(tiny_model, "layers.2", "layers.[01]") == ["layers.0", "layers.1", "layers.2"]
    assert names(tiny_model, "layers.?.mlp:input") == [f"layers.{layer}.mlp:input" for layer in range(3)]
    assert names(tiny_model, "layers.1", "layers.1:input", "layers.1") == ["layers.1", "layers.1:input"]


@pytest.mark.parametrize(
    ("patterns", "sentence"),
    [
        (["layer.1"], "nearest names are layers.1"),
        (["layers.1", "h.7"], "No module of the model matches 'h.7'"),
        ([], "No hookpoint was asked for"),
    ],
)
def test_unknown_hookpoints_get_the_nearest_names(tiny_model, patterns, sentence):
    with pytest.raises(ExpanderError) as refusal:
        find_hookpoints(tiny_model, patterns)
    assert sentence in str(refusal.value)


def test_activations_are_the_hidden_states(tiny_model):
    ids = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    states = tiny_model(input_ids=ids, output_hidden_states=True).hidden_states
    hookpoints = find_hookpoints(tiny_model, ["layers.1", "layers.1:input"])
    found = read_activations(tiny_model, hookpoints, ids)
    torch.testing.assert_close(found[Hookpoint("layers.1")], states[2])
    torch.testing.assert_close(found[Hookpoint("layers.1", at_input=True)], states[1])


def hooks_of(model):
    """How many hooks there are: transformers keeps some of its own."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_layers_behind_the_last_hookpoint_do_not_run_and_hooks_do_not_stay(tiny_model):
    ran, before = [], hooks_of(tiny_model)
    handles = [
        layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(tiny_model.base_model.layers)
    ]
    read_activations(tiny_model, find_hookpoints(tiny_model, ["layers.0", "layers.1"]), torch.zeros(1, 4).long())
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]
    assert hooks_of(tiny_model) == before


def test_a_module_without_one_vector_per_token_is_refused(tiny_model):
    class Pooled(torch.nn.Module):
        """One vector for each piece."""

        def __init__(self):
            super().__init__()
            self.pool = torch.nn.AdaptiveAvgPool1d(3)

        def forward(self, input_ids, use_cache):
            return self.pool(input_ids.float())

    with pytest.raises(ExpanderError, match=r"pool does not hold one vector for each token"):
        read_activations(Pooled(), find_hookpoints(Pooled(), ["pool"]), torch.zeros(1, 4).long())
    with pytest.raises(ExpanderError, match=r"layers took no part in the model's forward pass"):
        read_activations(tiny_model, find_hookpoints(tiny_model, ["layers"]), torch.zeros(1, 4).long())
