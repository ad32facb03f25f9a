"""The passage that is evaluated, and the activations on it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expander_sae import ExpanderError
from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.texts import documents, tokenise
from expander_sae.evaluation import text as text_module
from expander_sae.evaluation.text import Passage, TextActivations

HOOKPOINT = Hookpoint("layers.1")


def test_a_passage_is_the_first_tokens_in_the_order_of_the_text(language_model, text):
    pieces = tokenise(documents(text.text, part="all"), language_model.tokenizer, context=text.context, bos=text.bos)
    first = [(piece.document, token) for piece in pieces for token in piece.ids][:300]
    passage = Passage.of(language_model, text, 300)
    assert passage.tokens == 300
    assert passage.documents == len({document for document, _ in first})
    found = [
        (int(document), int(token))
        for batch in passage.batches
        for ids, mask, document in zip(batch.ids, batch.mask, batch.document, strict=True)
        for token in ids[mask]
    ]
    assert sorted(found) == sorted(first)  # no document was left out, so numbers are as they were
    assert all(batch.ids.numel() <= text_module.TOKENS_PER_BATCH for batch in passage.batches)


def test_a_text_may_be_shorter_than_what_is_asked_for_and_than_a_context(language_model, text, tmp_path):
    (tmp_path / "short.txt").write_text("A river.")
    short = dataclasses.replace(text, text=str(tmp_path / "short.txt"))
    passage = Passage.of(language_model, short, 10**6)
    assert 2 < passage.tokens < 10
    assert passage.documents == 1


def test_a_passage_from_here_and_there_is_another_one_for_another_seed(language_model, text):
    def drawn(seed, tokens=300, **options):
        return Passage.drawn(language_model, text, tokens, tokens_per_batch=64, seed=seed)

    def ids(passage):
        return [batch.ids[batch.mask].tolist() for batch in passage.batches]

    assert ids(drawn(0)) == ids(drawn(0)) != ids(drawn(1))
    assert drawn(0).tokens in (299, 300)
    whole = {tuple(row[mask].tolist()) for batch in Passage.of(language_model, text, 10**6).batches
             for row, mask in zip(batch.ids, batch.mask, strict=True)}  # fmt: skip
    taken = [tuple(row[mask].tolist()) for batch in drawn(0).batches
             for row, mask in zip(batch.ids, batch.mask, strict=True)]  # fmt: skip
    assert sum(piece not in whole for piece in taken) <= 1  # the last one is cut
    with pytest.raises(ExpanderError, match=r"The text has [\d,]+ tokens, not 1,000,000; ask for fewer"):
        drawn(0, 10**6)


@pytest.mark.parametrize(
    ("change", "content", "sentence"),
    [
        ({"context": 65}, "A river.", "longer than the 64"),
        ({}, "  ", "There is no text in"),
        ({}, "x", "has 2 tokens"),
        ({"part": "held-out"}, "A river.", "belongs to the part 'held-out'"),
        ({"text": "nowhere.txt"}, "", "There is no file"),
    ],
)
def test_texts_that_cannot_be_used(language_model, text, tmp_path, change, content, sentence):
    (tmp_path / "short.txt").write_text(content)
    wanted = dataclasses.replace(text, **({"text": str(tmp_path / "short.txt")} | change))
    with pytest.raises(ExpanderError, match=sentence):
        Passage.of(language_model, wanted, 100)


def test_mean_median_and_counts_are_those_of_all_activations_together(language_model, text):
    passage = Passage.of(language_model, text, 600)
    rows, special = [], 0
    for batch in passage.batches:
        states = language_model.model(input_ids=batch.ids, output_hidden_states=True).hidden_states[2]
        usual = batch.mask & (batch.ids != language_model.tokenizer.bos_token_id)
        rows += [states[batch.mask]]
        special += int((batch.mask & ~usual).sum())
    activations = TextActivations(language_model, HOOKPOINT, passage)
    assert activations.massive_above == pytest.approx(4 * float(torch.cat(rows).norm(dim=-1).median()))
    assert (activations.special, activations.massive) == (special, 0)
    x = torch.cat([part.x for part in activations.parts()])
    torch.testing.assert_close(activations.mean, x.double().mean(dim=0))
    assert len(x) == passage.tokens - special
    assert sum(part.tokens for part in activations.parts()) == passage.tokens


def test_activations_that_are_too_many_to_keep_are_computed_again(language_model, text, monkeypatch):
    passage = Passage.of(language_model, text, 600)
    kept = TextActivations(language_model, HOOKPOINT, passage)
    monkeypatch.setattr(text_module, "KEPT_BYTES", 100)
    again = TextActivations(language_model, HOOKPOINT, passage)
    assert kept._kept
    assert not again._kept
    assert again.massive_above == kept.massive_above
    for one, other in zip(kept.parts(), again.parts(), strict=True):
        assert torch.equal(one.activations, other.activations)


def test_the_median_is_of_the_first_tokens(language_model, text, monkeypatch):
    monkeypatch.setattr(text_module, "TOKENS_PER_BATCH", 64)
    monkeypatch.setattr(text_module, "SAMPLE", 50)
    passage = Passage.of(language_model, text, 600)
    first = next(iter(TextActivations(language_model, HOOKPOINT, passage, 1e9).parts()))
    median = first.activations[passage.batches[0].mask].norm(dim=-1).median()
    assert TextActivations(language_model, HOOKPOINT, passage).massive_above == pytest.approx(4 * float(median))


def test_massive_tokens_are_predicted_from_but_not_replaced(language_model, text):
    passage = Passage.of(language_model, text, 600)
    usual = TextActivations(language_model, HOOKPOINT, passage, 1e9)
    above = float(torch.cat([part.x for part in usual.parts()]).norm(dim=-1).median())
    half = TextActivations(language_model, HOOKPOINT, passage, above)
    for one, other in zip(usual.parts(), half.parts(), strict=True):
        assert torch.equal(one.predicts, other.predicts)
        assert int(one.replaced.sum()) == int(other.replaced.sum()) + other.massive
        assert not (other.replaced & (other.activations.norm(dim=-1) > above)).any()
        patched = other.replaced_by(torch.zeros(16))
        assert torch.equal(patched[~other.replaced], other.activations[~other.replaced])
        assert not patched[other.replaced].any()


def test_a_text_of_massive_tokens_only_is_refused(language_model, text):
    with pytest.raises(ExpanderError, match="nothing to replace"):
        TextActivations(language_model, HOOKPOINT, Passage.of(language_model, text, 60), 0.0)
