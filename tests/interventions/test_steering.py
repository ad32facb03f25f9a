"""What a model writes with features turned up, beside what it writes without."""

from __future__ import annotations

import pytest
import torch

import expander_sae as xs
from expander_sae.interventions import Add, steer

PROMPT = "The sun had just"


def test_without_edits_both_sides_write_what_generate_writes(language_model, sae):
    found = steer(language_model, {"layers.1": sae}, {}, PROMPT, tokens=10)
    ids = language_model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    made = language_model.model.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert found.without == found.steered == language_model.tokenizer.decode(made, skip_special_tokens=True)
    assert all(each.without == each.steered for each in found.next_tokens)


def test_a_column_that_points_at_a_token_makes_it_likelier(language_model, sae):
    weight = language_model.model.get_output_embeddings().weight.detach()
    # Tokens whose own direction helps no other token more.
    own = (weight @ weight.T).argmax(dim=1) == torch.arange(len(weight))
    token = next(i for i in range(len(weight)) if own[i] and language_model.tokenizer.decode([i]).isalpha())
    target = weight[token]
    pointing = xs.SparseAutoencoder(xs.DenseDictionary(m=16, n=4), xs.TopK(k=1))
    with torch.no_grad():
        pointing.dictionary.values[2] = target / target.norm()
    heard = []
    found = steer(
        language_model, {"norm": pointing}, {"norm": [Add(2, 5000.0)]}, PROMPT, tokens=5,
        listen=lambda side, text: heard.append((side, text)),
    )  # fmt: skip
    assert found.next_tokens[0].token == token
    assert found.next_tokens[0].steered > 0.99 > found.next_tokens[0].without
    assert found.steered == language_model.tokenizer.decode([token]) * 5
    assert "".join(text for side, text in heard if side == "without") == found.without
    assert "".join(text for side, text in heard if side == "steered") == found.steered


def test_sampling_is_repeatable_and_leaves_the_generator_alone(language_model, sae):
    def once(seed):
        return steer(language_model, {"layers.1": sae}, {}, PROMPT, tokens=20, temperature=1.5, seed=seed).steered

    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = once(0)
    assert torch.equal(torch.rand(3), expected)
    assert first == once(0) != once(1)


def test_the_listener_can_stop_it(language_model, sae):
    heard = []

    def stop(side, text):
        heard.append(side)
        return heard.count(side) == 3

    found = steer(language_model, {"layers.1": sae}, {}, PROMPT, tokens=50, listen=stop)
    assert heard.count("without") == heard.count("steered") == 3
    assert len(found.without) < 50


def test_prompts_that_cannot_be(language_model, sae):
    for prompt, sentence in (("", "prompt is empty"), ("word " * 100, "reads at most 64")):
        with pytest.raises(xs.ExpanderError, match=sentence):
            steer(language_model, {"layers.1": sae}, {}, prompt)
    with pytest.raises(xs.ExpanderError, match="tokens must be at least 1"):
        steer(language_model, {"layers.1": sae}, {}, PROMPT, tokens=0)


def test_what_cannot_be_written_is_refused(language_model, sae):
    length = language_model.tokenizer(PROMPT, return_tensors="pt")["input_ids"].shape[1]
    with pytest.raises(
        xs.ExpanderError, match=f"{length} of them are the prompt, so at most {64 - length} can be written"
    ):
        steer(language_model, {"layers.1": sae}, {}, PROMPT, tokens=64)
    with pytest.raises(xs.ExpanderError, match="temperature 0 or at least 1e-06, not 5 and 1e-30"):
        steer(language_model, {"layers.1": sae}, {}, PROMPT, tokens=5, temperature=1e-30)
    for temperature in (0.0, 1.0):
        with pytest.raises(xs.ExpanderError, match="so strong that the model's numbers overflow"):
            steer(language_model, {"layers.1": sae}, {"layers.1": [Add(2, 1e39)]}, PROMPT, temperature=temperature)
