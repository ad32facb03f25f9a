"""Evaluation inside a language model: what must come out for autoencoders that are known through and through."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from expander_sae import OMP, ExpanderError, evaluate
from expander_sae.activations.hookpoints import find_hookpoints
from expander_sae.evaluation.text import Passage, TextActivations
from tests.evaluation.subjects import constant, identity, random

M = 16
TOKENS = 700
HOOKPOINT = "layers.1"


def measured(saes, language_model, on, **options):
    return evaluate(saes, language_model, **({"hookpoint": HOOKPOINT, "text": on, "tokens": TOKENS} | options))


def read(language_model, text, massive_above=None):
    passage = Passage.of(language_model, text, TOKENS)
    return TextActivations(
        language_model, find_hookpoints(language_model.model, [HOOKPOINT])[0], passage, massive_above
    )


def test_a_perfect_reconstruction_loses_nothing(language_model, text):
    found = measured(identity(M), language_model, text)
    loss = found.language_model
    assert (found.fvu.value, found.explained_variance.value) == (0, 1)
    assert found.cosine.value == pytest.approx(1)
    assert loss.patched == loss.clean
    assert loss.kl.value == 0
    assert (loss.recovered_zero.value, loss.recovered_mean.low, loss.recovered_mean.high) == (1, 1, 1)


def test_predicting_the_mean_explains_nothing_and_is_mean_ablation(language_model, text):
    mean = read(language_model, text).mean
    found = measured(constant(mean.float()), language_model, text)
    assert found.explained_variance.value == pytest.approx(0, abs=1e-6)
    assert found.language_model.patched == found.language_model.mean
    assert found.language_model.recovered_mean.value == 0
    assert found.never_fired == 1


def test_predicting_zero_is_zero_ablation(language_model, text):
    found = measured(constant(torch.zeros(M)), language_model, text)
    assert found.language_model.patched == found.language_model.zero
    assert found.language_model.recovered_zero.value == 0
    assert found.cosine.value == 0


def test_what_is_counted(language_model, text):
    found = measured(identity(M, k=3), language_model, text)
    passage = Passage.of(language_model, text, TOKENS)
    pieces = sum(len(batch.ids) for batch in passage.batches)
    assert (found.tokens, found.documents) == (TOKENS, passage.documents)
    assert found.passed_through == {"special": pieces, "massive": 0}
    assert found.l0.value == 3
    assert sum(found.density) == round((1 - found.never_fired) * M)
    assert found.learned_values == M * M + M
    assert found.coder == "topk:3"


def by_hand(language_model, text, sae, massive_above=math.inf):
    """Cross-entropies as SAELens defines them, one piece after the other, through a hook of one's own.

    Special tokens keep their activations and are not predicted from; so do massive ones, but those are predicted from.
    """
    sums, count = {"clean": 0.0, "patched": 0.0, "zero": 0.0}, 0
    layer = language_model.model.base_model.get_submodule(HOOKPOINT)
    for batch in Passage.of(language_model, text, TOKENS).batches:
        for ids, mask in zip(batch.ids, batch.mask, strict=True):
            ids = ids[mask][None]
            usual = ids != language_model.tokenizer.bos_token_id
            for name, replacement in (("clean", None), ("patched", sae), ("zero", torch.zeros_like)):

                def patch(module, inputs, output, usual=usual, replacement=replacement):
                    small = output.norm(dim=-1) <= massive_above
                    replaced = usual & small if replacement else torch.zeros_like(usual)
                    new = replacement(output) if replacement else output
                    return torch.where(replaced[..., None], new, output)

                handle = layer.register_forward_hook(patch)
                with torch.no_grad():
                    logits = language_model.model(input_ids=ids).logits[0, :-1]
                handle.remove()
                losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
                sums[name] += float(losses[usual[0, :-1]].double().sum())
            count += int(usual[0, :-1].sum())
    return {name: total / count for name, total in sums.items()}


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_cross_entropies_are_those_of_a_plain_hook(language_model, text, share):
    norms = torch.cat([part.x.norm(dim=-1) for part in read(language_model, text, math.inf).parts()])
    above = float(norms.quantile(share)) * 1.0001
    sae = random(M, k=6, hookpoint=HOOKPOINT, massive_above=above)
    found = measured(sae, language_model, text)
    assert found.setting["massive_from"] == "training"
    assert (found.passed_through["massive"] > 0) == (share < 1)
    expected, loss = by_hand(language_model, text, sae, above), found.language_model
    for name in expected:
        assert getattr(loss, name).value == pytest.approx(expected[name], rel=1e-5)
    recovered = (expected["zero"] - expected["patched"]) / (expected["zero"] - expected["clean"])
    assert loss.recovered_zero.value == pytest.approx(recovered, rel=1e-4)


def test_retention_is_the_share_of_the_references_recovery(language_model, text):
    saes = {"dense": identity(M, k=8), "sparse": identity(M, k=3)}
    found = measured(saes, language_model, text, reference="dense")
    own = found["dense"].language_model.retention_zero
    assert (own.value, own.low, own.high) == (1, 1, 1)
    sparse, dense = found["sparse"].language_model, found["dense"].language_model
    assert sparse.retention_mean.value == pytest.approx(sparse.recovered_mean.value / dense.recovered_mean.value)
    # Paired over documents: surer than the difference of two intervals.
    assert sparse.retention_zero.low < sparse.retention_zero.value < sparse.retention_zero.high
    assert measured(saes, language_model, text)["sparse"].language_model.retention_zero is None


def test_one_of_several_is_what_it_is_alone(language_model, text):
    saes = {"a": identity(M, k=2), "b": random(M)}
    together = measured(saes, language_model, text)
    for name, sae in saes.items():
        assert dataclasses.replace(measured(sae, language_model, text), name=name) == together[name]


def test_any_coder_measures_any_dictionary(language_model, text):
    sae = random(M)
    found = measured(sae, language_model, text, coder=OMP(5))
    assert found.coder == "omp:5"
    assert found.fvu.value < measured(sae, language_model, text).fvu.value


def test_the_report_ends_at_the_tokens_asked_for(language_model, text):
    done = []
    measured(random(M), language_model, text, report=done.append)
    assert done == sorted(done)
    assert done[-1] == TOKENS


def test_half_precision_gives_about_the_same(language_model, text):
    model = language_model.model
    coarse = dataclasses.replace(language_model, model=type(model)(model.config).to(torch.bfloat16).eval())
    coarse.model.load_state_dict(model.state_dict())
    one, other = (measured(identity(M, k=6), each, text) for each in (language_model, coarse))
    assert other.fvu.value == pytest.approx(one.fvu.value, rel=0.05)
    assert other.language_model.patched.value == pytest.approx(one.language_model.patched.value, rel=0.05)


def test_an_ablation_that_does_no_harm_recovers_nothing(language_model, text):
    """A model that cannot tell its tokens apart loses nothing when its activations go."""
    model = language_model.model
    dull = dataclasses.replace(language_model, model=type(model)(model.config).eval().requires_grad_(False))
    for parameter in dull.model.parameters():
        parameter.fill_(0.1)
    loss = measured(identity(M), dull, text).language_model
    assert math.isnan(loss.recovered_mean.value)
    assert math.isnan(loss.recovered_mean.low)
    assert "mean" in loss.harmless_ablations


def provenance(language_model, text, **changes):
    origin = {"model": language_model.name, "revision": None, "hookpoint": HOOKPOINT, **dataclasses.asdict(text)}
    return origin | {"part": "train"} | changes


def test_what_training_knew_is_taken_from_it(language_model, text):
    sae = random(M, **provenance(language_model, text))
    found = evaluate(sae, language_model, tokens=60)
    assert found.setting["hookpoint"] == HOOKPOINT
    assert found.setting["part"] == "held-out"
    assert found.setting["held_out"] is True
    assert (found.setting["bos"], found.setting["context"]) == (True, 32)
    assert found.setting["massive_from"] == "the evaluated text"
    everything = measured(sae, language_model, text)
    assert everything.setting["held_out"] is False


def refusals():
    yield {}, {"hookpoint": None}, "give the hookpoint"
    yield {}, {"text": None}, "give a text"
    yield {}, {"hookpoint": "layers.9"}, "No module of the model matches"
    yield {}, {"hookpoint": "layers.*"}, "name one of them"
    yield {}, {"hookpoint": "layers.1.mlp.up_proj"}, "those of layers.1.mlp.up_proj are 32 wide"
    yield {}, {"reference": "b"}, "The reference 'b' is none of the autoencoders"
    yield {}, {"tokens": 2}, "at least 3 tokens"
    yield {"revision": "abc"}, {}, "was trained on revision abc"


@pytest.mark.parametrize(("origin", "options", "sentence"), list(refusals()))
def test_refusals(language_model, text, origin, options, sentence):
    sae = random(M, **({"model": language_model.name} | origin))
    with pytest.raises(ExpanderError, match=sentence):
        measured(sae, language_model, text, **options)


def test_autoencoders_of_different_hookpoints_are_not_mixed(language_model, text):
    saes = {"a": random(M, hookpoint="layers.0"), "b": random(M, hookpoint="layers.1")}
    with pytest.raises(ExpanderError, match=r"trained with hookpoint layers\.0 and layers\.1"):
        measured(saes, language_model, text, hookpoint=None)
    with pytest.raises(ExpanderError, match="nothing to evaluate"):
        measured({}, language_model, text)


def test_activations_that_are_not_finite_are_refused(language_model, text):
    model = type(language_model.model)(language_model.model.config).eval().requires_grad_(False)
    model.get_input_embeddings().weight[:] = torch.nan
    with pytest.raises(ExpanderError, match=r"layers\.1 are not finite"):
        measured(identity(M), dataclasses.replace(language_model, model=model), text)
