"""Dictionaries inside a running model, against a forward pass that is written out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import expander_sae as xs
from expander_sae.interventions import Ablate, Add, Clamp, Patch, Scale, attach
from tests.interventions.conftest import K, N, dictionary

HOOKPOINT = "layers.1"


def logits(language_model, ids, **named):
    with torch.no_grad():
        return language_model.model(input_ids=ids, **named).logits


def by_hand(language_model, ids, change):
    """The logits when `change` is made to the output of the second block, by a hook of the test's own."""
    handle = language_model.model.base_model.layers[1].register_forward_hook(lambda _, __, output: change(output))
    try:
        return logits(language_model, ids)
    finally:
        handle.remove()


def activations(language_model, ids):
    kept = []
    by_hand(language_model, ids, lambda x: kept.append(x) or x)
    return kept[0]


def hooks(language_model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in language_model.model.modules())


def test_without_edits_the_model_predicts_the_same_bits(language_model, sae, ids):
    clean = logits(language_model, ids)
    with attach(language_model, {HOOKPOINT: sae}) as live:
        assert torch.equal(logits(language_model, ids), clean)
        x = activations(language_model, ids)
        expected = sae.encode(x)
        assert torch.equal(live.codes().to_dense(), expected.to_dense())
    assert torch.equal(logits(language_model, ids), clean)
    assert hooks(language_model) == 0


def test_the_reconstruction_takes_the_place_of_the_activations(language_model, sae, ids):
    expected = by_hand(language_model, ids, sae)
    with attach(language_model, {HOOKPOINT: sae}, keep_error=False):
        torch.testing.assert_close(logits(language_model, ids), expected)


EDITS = {
    "ablate": (lambda j: Ablate(j), lambda z: 0 * z),
    "scale": (lambda j: Scale(j, -2.5), lambda z: -2.5 * z),
    "clamp": (lambda j: Clamp(j, 3.0), lambda z: torch.full_like(z, 3.0)),
    "add": (lambda j: Add(j, 1.5), lambda z: z + 1.5),
}


@pytest.mark.parametrize("keep_error", [True, False])
@pytest.mark.parametrize("name", list(EDITS))
def test_every_edit_is_what_one_would_write_by_hand(language_model, sae, ids, name, keep_error):
    make, changed = EDITS[name]
    x = activations(language_model, ids)
    feature = int(sae.encode(x).indices[0, 3, 0])
    positions = slice(2, None)

    def hand(x):
        dense = sae.encode(x).to_dense()
        new = dense.clone()
        new[:, 2:, feature] = changed(dense[:, 2:, feature])
        W = sae.dictionary.to_dense()
        rest = x - (dense @ W.T + sae.pre_bias) / sae.scale if keep_error else 0
        return (new @ W.T + sae.pre_bias) / sae.scale + rest

    expected = by_hand(language_model, ids, hand)
    edit = dataclasses.replace(make(feature), positions=positions)
    with attach(language_model, {HOOKPOINT: sae}, edits={HOOKPOINT: [edit]}, keep_error=keep_error):
        found = logits(language_model, ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, logits(language_model, ids), atol=1e-3)


def test_edits_follow_one_another(language_model, sae, ids):
    feature = int(sae.encode(activations(language_model, ids)).indices[0, 2, 0])
    with attach(language_model, {HOOKPOINT: sae}) as live:
        live.edit(HOOKPOINT, Clamp(feature, 2.0), Scale(feature, 3.0), Add(feature, -1.0))
        several = logits(language_model, ids)
        live.edit(HOOKPOINT, Clamp(feature, 5.0))
        torch.testing.assert_close(several, logits(language_model, ids))


def test_codes_of_another_prompt(language_model, sae, ids):
    other = ids.flip(1)
    W = sae.dictionary.to_dense()
    with attach(language_model, {HOOKPOINT: sae}) as live:
        logits(language_model, other)
        theirs = live.codes()
        live.edit(HOOKPOINT, Patch(theirs, positions=[1, 3]))
        found = logits(language_model, ids)
        live.edit(HOOKPOINT, Patch(live.codes()))  # a text's own codes change nothing
        logits(language_model, ids)
        live.edit(HOOKPOINT, Patch(live.codes()))
        torch.testing.assert_close(logits(language_model, ids), by_hand(language_model, ids, lambda x: x))

    def hand(x):
        x = x.clone()
        change = theirs.to_dense() - sae.encode(x).to_dense()
        x[:, [1, 3]] += (change @ W.T / sae.scale)[:, [1, 3]]
        return x

    torch.testing.assert_close(found, by_hand(language_model, ids, hand), rtol=1e-4, atol=1e-4)


def test_some_features_of_another_prompt(language_model, sae, ids):
    x = activations(language_model, ids)
    feature = int(sae.encode(x).indices[0, 2, 0])
    silent = xs.Codes(torch.zeros(1, ids.shape[1], 1), torch.zeros(1, ids.shape[1], 1, dtype=torch.int64), N)
    with attach(language_model, {HOOKPOINT: sae}, edits={HOOKPOINT: [Patch(silent, features=[feature])]}) as live:
        patched = logits(language_model, ids)
        live.edit(HOOKPOINT, Ablate(feature))
        torch.testing.assert_close(patched, logits(language_model, ids))


@pytest.mark.parametrize("positions", [None, slice(3, None), slice(0, 4), [0, 5, 9]])
def test_generating_with_a_cache_or_without_is_the_same(language_model, sae, ids, positions):
    edit = Add(7, 6.0, positions)

    def written(use_cache):
        with attach(language_model, {HOOKPOINT: sae}, edits={HOOKPOINT: [edit]}) as live:
            made = language_model.model.generate(
                ids, max_new_tokens=12, do_sample=False, use_cache=use_cache, pad_token_id=0
            )
            return made, live.codes().to_dense()

    (cached, codes), (anew, expected) = written(True), written(False)
    assert torch.equal(cached, anew)
    torch.testing.assert_close(codes, expected, rtol=1e-3, atol=1e-3)
    assert codes.shape[1] == cached.shape[1] - 1  # the last token was written, not read


def test_several_layers_at_once(language_model, sae, ids):
    other = dictionary(1, xs.TopK(k=K))
    edits = {"layers.0": [Add(1, 4.0)], "layers.2": [Add(2, -3.0)]}
    with attach(language_model, {"layers.0": sae, "layers.2": other}, edits=edits) as live:
        found = logits(language_model, ids)
        assert live.codes("layers.2").n == N
        with pytest.raises(xs.ExpanderError, match="say which is meant"):
            live.codes()
    W, V = sae.dictionary.to_dense(), other.dictionary.to_dense()
    layers = language_model.model.base_model.layers
    handles = [
        layers[0].register_forward_hook(lambda _, __, x: x + 4 * W[:, 1] / sae.scale),
        layers[2].register_forward_hook(lambda _, __, x: x - 3 * V[:, 2] / other.scale),
    ]
    expected = logits(language_model, ids)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_special_massive_and_padding_tokens_pass(language_model, sae, ids):
    tokenizer = language_model.tokenizer
    with_bos = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
    x = activations(language_model, with_bos)
    norms = torch.linalg.vector_norm(x[0], dim=-1)
    limit = float(norms[1:].median())
    marked = sae.with_coder(sae.coder)
    marked.provenance["activations"] = {"hookpoint": HOOKPOINT, "massive_above": limit}
    mask = torch.ones_like(with_bos)
    mask[0, 2] = 0
    with attach(language_model, {HOOKPOINT: marked}, edits={HOOKPOINT: [Add(3, 1.0)]}) as live:
        logits(language_model, with_bos)
        fired = live.codes().l0[0] > 0
        assert torch.equal(fired, (norms <= limit) & (with_bos[0] != tokenizer.bos_token_id))
        logits(language_model, with_bos, attention_mask=mask)
        assert live.codes().l0[0, 2] == 0


def test_no_hook_stays_behind_an_exception(language_model, sae, ids):
    with pytest.raises(RuntimeError, match="on purpose"), attach(language_model, {HOOKPOINT: sae}):
        raise RuntimeError("on purpose")
    narrow = xs.SparseAutoencoder(xs.ExpanderDictionary(xs.Support.make("uniform", m=8, n=9, d=2, seed=0)), xs.OMP(k=2))
    with (
        pytest.raises(xs.ExpanderError, match="width 16, but the dictionary is for 8"),
        attach(language_model, {HOOKPOINT: narrow}),
    ):
        logits(language_model, ids)
    assert hooks(language_model) == 0


@pytest.mark.parametrize(
    "name", ["model.layers.1", "blocks.1.hook_resid_post", "layers.2:input", "blocks.2.hook_resid_pre"]
)
def test_names_of_hugging_face_and_of_transformer_lens(language_model, sae, ids, name):
    with attach(language_model, {name: sae}) as live:
        logits(language_model, ids)
        assert torch.equal(live.codes().values, sae.encode(activations(language_model, ids)).values)


def test_names_inside_a_block(language_model, sae, ids):
    for theirs, ours in (("blocks.1.hook_mlp_out", "layers.1.mlp"), ("blocks.1.hook_attn_out", "layers.1.self_attn")):
        found = []
        for name in (theirs, ours):
            with attach(language_model.model, {name: sae}) as live:
                logits(language_model, ids)
                found.append(live.codes().values)
        assert torch.equal(*found)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (Ablate(N), "There is no feature 40"),
        (Scale(0, float("nan")), "give a finite number"),
        (Patch(xs.Codes(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1, dtype=torch.int64), 3)), "codes are for 3 features"),
    ],
)
def test_edits_that_cannot_be(language_model, sae, edit, sentence):
    with pytest.raises(xs.ExpanderError, match=sentence):
        attach(language_model, {HOOKPOINT: sae}, edits={HOOKPOINT: [edit]})


def test_attachments_that_cannot_be(language_model, sae, ids):
    with pytest.raises(xs.ExpanderError, match="nearest names are"):
        attach(language_model, {"layer.1": sae})
    with pytest.raises(xs.ExpanderError, match="matches 3 hookpoints"):
        attach(language_model, {"layers.?": sae})
    with pytest.raises(xs.ExpanderError, match="for one hookpoint"):
        attach(language_model, {"layers.1": sae, "model.layers.1": sae})
    with pytest.raises(xs.ExpanderError, match="at least one"):
        attach(language_model, {})
    live = attach(language_model, {HOOKPOINT: sae}, edits={HOOKPOINT: [Add(0, 1.0, slice(-3, None))]})
    with pytest.raises(xs.ExpanderError, match="has read nothing"):
        live.codes()
    with live, pytest.raises(xs.ExpanderError, match="count from the beginning"):
        logits(language_model, ids)
