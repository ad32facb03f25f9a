"""A held-out text is the model's own reading of it, token by token, wherever it comes from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.texts import documents
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import HeldOut
from expander_sae.evaluation.quality.keeping import keep, kept
from expander_sae.evaluation.quality.predictions import Predictions
from tests.evaluation.quality.conftest import HOOKPOINT


def test_tokens_spell_their_documents(held_out: HeldOut, plain: HeldOut, text: TextConfig) -> None:
    originals = [document.text for document in documents(text.text, part="all")]
    for found in (held_out.text, plain.text):
        assert found.documents == originals
        for number, original in enumerate(originals):
            here = found.document == number
            written = "".join(original[begin:end] for begin, end in found.spans[here])
            assert original.startswith(written)
            assert len(original) - len(written) <= 1  # a piece of a single token is left out
            assert (np.diff(found.position[here]) == 1).all()
    spelled = "".join(plain.text.spelled[int(each)] for each in plain.text.ids[plain.text.document == 7])
    assert originals[7].startswith(spelled)


def test_special_tokens_are_in_the_text_but_not_measured(held_out: HeldOut, language_model: LanguageModel) -> None:
    special = np.isin(held_out.text.ids, language_model.tokenizer.all_special_ids)
    assert special.sum() == held_out.text.piece.max() + 1
    assert not special[held_out.place].any()


def test_activations_and_predictions_are_those_of_the_model(held_out: HeldOut, language_model: LanguageModel) -> None:
    for piece in (0, int(held_out.text.piece.max())):
        here = np.flatnonzero(held_out.text.piece == piece)
        ids = torch.from_numpy(held_out.text.ids[here])[None]
        with torch.no_grad():
            output = language_model.model(input_ids=ids, output_hidden_states=True)
        measured = np.flatnonzero(np.isin(held_out.place, here))
        inside = held_out.place[measured] - here[0]
        torch.testing.assert_close(held_out.x[measured], output.hidden_states[2][0, inside], rtol=1e-4, atol=1e-5)
        roots = held_out.predictions.roots(torch.from_numpy(measured))
        torch.testing.assert_close(roots**2, output.logits[0, inside].softmax(-1), rtol=1e-4, atol=1e-5)


def test_massive_tokens_are_left_out(held_out: HeldOut, language_model: LanguageModel, text: TextConfig) -> None:
    norms = held_out.x.norm(dim=1)
    limit = float(norms.median())
    found = HeldOut.read(language_model, text, HOOKPOINT, tokens=20_000, massive_above=limit)
    assert found.massive_above == limit
    assert len(found.x) == int((norms <= limit).sum())
    assert len(found.text.ids) == len(held_out.text.ids)


def test_a_text_of_one_document_is_refused(language_model: LanguageModel, text: TextConfig) -> None:
    with pytest.raises(ExpanderError, match="a single document"):
        HeldOut.read(language_model, text, HOOKPOINT, tokens=5)


def test_logits_that_are_made_in_another_way_are_refused(language_model: LanguageModel) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        hidden = language_model.model.base_model(input_ids=ids)[0][0]
    Predictions.of(language_model, hidden).check(language_model, ids)
    with pytest.raises(ExpanderError, match="cannot be compared"):
        Predictions.of(language_model, 2 * hidden).check(language_model, ids)


def test_squeezed_logits_are_squeezed() -> None:
    predictions = Predictions(torch.tensor([[1.0]]), torch.tensor([[100.0], [1.0]]), softcap=30.0)
    expected = 30 * torch.tanh(torch.tensor([[100.0, 1.0]]) / 30)
    torch.testing.assert_close(predictions.logits(torch.tensor([0])), expected)


def test_what_is_kept_comes_back(held_out: HeldOut, tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    keep(held_out, path, {"model": "a"})
    back = kept(path, {"model": "a"})
    assert torch.equal(back.x, held_out.x)
    assert torch.equal(back.predictions.hidden, held_out.predictions.hidden)
    for field in dataclasses.fields(held_out.text):
        assert np.array_equal(getattr(back.text, field.name), getattr(held_out.text, field.name))
    assert back.massive_above == held_out.massive_above


def test_another_text_or_a_damaged_file_is_refused(held_out: HeldOut, tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    keep(held_out, path, {"model": "a"})
    with pytest.raises(ExpanderError, match="another text"):
        kept(path, {"model": "b"})
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2, whole.index(b"softcap")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ExpanderError, match="cannot be read"):
            kept(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ExpanderError, match="cannot be read"):
        kept(path)
    path.write_text(json.dumps({}))
    with pytest.raises(ExpanderError, match="cannot be read"):
        kept(path)
