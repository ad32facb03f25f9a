"""Fine-tuning inside a tiny language model: the right gradient, a smaller loss, and a run that can be interrupted."""

from __future__ import annotations

import copy
import dataclasses
import os
import signal

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from expander_sae import ExpanderError, SparseAutoencoder, evaluate
from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.errors import StoppedError
from expander_sae.evaluation.text import Passage, TextActivations
from expander_sae.finetuning import FinetuneConfig, finetune
from expander_sae.finetuning.learner import Finetuner
from expander_sae.interventions.replaced import PatchedModel
from expander_sae.training import CheckpointError, TrainConfig, read_metrics, train
from tests.evaluation.subjects import random
from tests.training.planted import same_tensors

CONFIG = FinetuneConfig(fvu_weight=4.0, tokens=1500, batch=128, learning_rate=0.003, log_every=1, checkpoint_every=500)


def in_float64(language_model):
    """Another model with its tokenizer, all in float64 (a Llama's norms are in float32 whatever it is)."""
    sizes = {"vocab_size": language_model.vocabulary, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes)).double().eval()
    for parameter in model.requires_grad_(False).parameters():
        parameter.mul_(10 if parameter.ndim == 2 else 1)
    return dataclasses.replace(language_model, model=model)


def test_the_gradient_through_the_language_model_is_that_of_finite_differences(trained, language_model, prose):
    exact, hookpoint = in_float64(language_model), Hookpoint("h.0")
    sae = copy.deepcopy(trained).double()
    activations = TextActivations(exact, hookpoint, Passage.of(exact, prose, 100))
    finetuner = Finetuner(CONFIG, sae, PatchedModel(exact, hookpoint), activations.variation)
    part = next(activations.parts())

    def loss():
        return finetuner.losses(part)["kl"]

    loss().backward()
    largest = 0.0
    for parameter in sae.parameters():
        if not parameter.requires_grad:  # the latent bias where it only says who may fire
            continue
        for position in parameter.grad.abs().flatten().topk(3).indices.tolist():
            expected = 0.0
            with torch.no_grad():
                for sign in (1, -1):
                    parameter.view(-1)[position] += sign * 1e-6
                    expected += sign * float(loss()) / (2 * 1e-6)
                    parameter.view(-1)[position] -= sign * 1e-6
            assert float(parameter.grad.view(-1)[position]) == pytest.approx(expected, rel=1e-4, abs=1e-7)
            largest = max(largest, abs(expected))
    assert largest > 1e-2


def test_the_model_loses_less_and_the_original_nothing(trained, language_model, tmp_path):
    before = copy.deepcopy(trained)
    run = finetune(trained, language_model, CONFIG, out=tmp_path / "out", progress=False)
    assert same_tensors(trained, before)
    assert trained.provenance == before.provenance
    losses = [evaluate(sae, language_model, tokens=500) for sae in (trained, run.sae)]
    assert losses[1].language_model.kl.value < 0.9 * losses[0].language_model.kl.value
    assert losses[1].setting["held_out"]
    if hasattr(trained.dictionary, "rows"):
        assert torch.equal(run.sae.dictionary.rows, trained.dictionary.rows)
    if run.sae.latent_bias is None:
        torch.testing.assert_close(run.sae.dictionary.norms(), torch.ones(run.sae.n))


def test_mixtures_and_their_atoms_both_learn(activations, language_model, prose):
    x = torch.cat([part.x for part in activations.parts()])
    settings = TrainConfig(n=32, k=2, d=4, atoms=8, dead_after=128, move_every=2, tokens=64 * 8, batch=64)
    before = train(x, settings, progress=False).sae
    after = finetune(
        before,
        language_model,
        dataclasses.replace(CONFIG, tokens=500),
        hookpoint="layers.0",
        text=prose,
        progress=False,
    ).sae
    for block in ("atoms", "mixtures"):
        ours, theirs = (sae.dictionary.get_submodule(block).values for sae in (after, before))
        assert not torch.equal(ours, theirs), block
    assert torch.equal(after.dictionary.mixtures.rows, before.dictionary.mixtures.rows)


def test_what_is_written_is_what_is_given_back(trained, language_model, tmp_path):
    run = finetune(trained, language_model, CONFIG, out=tmp_path / "out", progress=False)
    loaded = SparseAutoencoder.load(tmp_path / "out")
    assert same_tensors(loaded, run.sae)
    assert loaded.provenance["finetuned"]["tokens"] == 1500
    assert loaded.provenance["finetuned"]["learning_rate"] == 0.003
    assert loaded.provenance["training"] == trained.provenance["training"]
    assert read_metrics(tmp_path / "out" / "metrics.jsonl") == run.metrics
    assert {"step", "tokens", "kl", "fvu", "ce", "tokens_per_second"} <= run.metrics[-1].keys()
    assert run.metrics[-1]["tokens"] == 1500


def test_an_autoencoder_that_knows_nothing_learns_where_it_was_fine_tuned(trained, language_model, prose):
    unknown = copy.deepcopy(trained)
    unknown.provenance = {}
    short = dataclasses.replace(CONFIG, tokens=300)
    run = finetune(unknown, language_model, short, hookpoint="layers.0", text=prose, progress=False)
    assert evaluate(run.sae, language_model, tokens=200).setting["hookpoint"] == "layers.0"


def test_fvu_alone_is_what_training_makes_small(trained, language_model):
    config = dataclasses.replace(CONFIG, fvu_weight=1000.0)
    fvu = [
        evaluate(finetune(trained, language_model, each, progress=False).sae, language_model, tokens=500).fvu.value
        for each in (config, dataclasses.replace(CONFIG, fvu_weight=0.0))
    ]
    assert fvu[0] < fvu[1]


def interrupted(at, what, monkeypatch):
    """Let something happen at a step."""
    step, count = Finetuner.step, [0]

    def counted(self, part):
        count[0] += 1
        if count[0] == at:
            what()
        return step(self, part)

    monkeypatch.setattr(Finetuner, "step", counted)


def fail():
    raise RuntimeError("power")


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("what", "error"), [(fail, RuntimeError), (terminate, StoppedError)])
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(
    what, error, trained, language_model, tmp_path, monkeypatch
):
    whole = finetune(trained, language_model, CONFIG, out=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        interrupted(8, what, patch)
        with pytest.raises(error):
            finetune(trained, language_model, CONFIG, out=tmp_path / "halves", progress=False)
    with pytest.raises(ExpanderError, match="go on with --resume"):
        finetune(trained, language_model, CONFIG, out=tmp_path / "halves", progress=False)
    resumed = finetune(trained, language_model, CONFIG, out=tmp_path / "halves", resume=True, progress=False)
    assert same_tensors(resumed.sae, whole.sae)
    for name in ("step", "tokens", "kl", "ce", "learning_rate"):
        assert [row[name] for row in resumed.metrics] == [row[name] for row in whole.metrics]
    again = finetune(trained, language_model, CONFIG, out=tmp_path / "halves", resume=True, progress=False)
    assert same_tensors(again.sae, whole.sae)
    changed = dataclasses.replace(CONFIG, learning_rate=0.02)
    with pytest.raises(CheckpointError, match=r"made with learning_rate=0.003, not 0.02"):
        finetune(trained, language_model, changed, out=tmp_path / "halves", resume=True, progress=False)
    with pytest.raises(CheckpointError, match=r"made with autoencoder="):
        finetune(resumed.sae, language_model, CONFIG, out=tmp_path / "halves", resume=True, progress=False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"fvu_weight": -1.0}, "fvu_weight must be at least 0"),
        ({"warm_up": 0.6, "decay": 0.6}, "add up to at most 1"),
        ({"betas": (0.9, 1.0)}, "betas must be from 0 to below 1"),
        ({"clip": 0.0}, "clip must be above 0"),
    ],
)
def test_bad_configs(settings, sentence):
    with pytest.raises(ExpanderError, match=sentence):
        FinetuneConfig(**settings)


def test_bad_requests(trained, language_model, prose, tmp_path):
    def refused(sae, config=CONFIG, **options):
        with pytest.raises(ExpanderError) as refusal:
            finetune(sae, language_model, config, progress=False, **options)
        return str(refusal.value)

    assert "Resuming needs a folder" in refused(trained, resume=True)
    assert "holds no checkpoint" in refused(trained, resume=True, out=tmp_path)
    assert "16 wide" in refused(random(8), hookpoint="layers.0", text=prose)
    assert "give a text" in refused(random(16))
    assert "ask for fewer" in refused(trained, FinetuneConfig(tokens=10**6))
    assert "at least 3 tokens" in refused(trained, FinetuneConfig(tokens=2))
    (tmp_path / "something").write_text("else")
    assert "already holds something else" in refused(trained, out=tmp_path)
    assert "already holds something else" in refused(trained, out=tmp_path / "something")


def test_a_learning_rate_that_ends_in_infinity_is_named(trained, language_model):
    with pytest.raises(ExpanderError, match="finite"):
        finetune(trained, language_model, dataclasses.replace(CONFIG, learning_rate=1e37), progress=False)
