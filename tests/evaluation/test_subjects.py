"""Which autoencoders are evaluated, what they are compared with, and what their files say of their training."""

from __future__ import annotations

from pathlib import Path

import pytest

from expander_sae import DenseDictionary, ExpanderDictionary, ExpanderError, SparseAutoencoder, Support, TopK
from expander_sae.activations.harvest import TextConfig
from expander_sae.evaluation import default_reference, load_runs, text_for, trained_with
from tests.evaluation.subjects import random


def dense(n, k=3):
    return SparseAutoencoder(DenseDictionary(16, n), TopK(k))


def sparse(n, d, k=3):
    return SparseAutoencoder(ExpanderDictionary(Support.make("uniform", m=16, n=n, d=d, seed=0)), TopK(k))


def test_the_reference_is_the_one_dense_dictionary_of_the_same_n_and_k():
    trained = {"d4": sparse(24, 4), "d8": sparse(24, 8), "dense": dense(24), "matched": dense(6)}
    assert default_reference(trained) == "dense"
    assert default_reference({"d4": sparse(24, 4), "matched": dense(6)}) is None
    assert default_reference({"d4": sparse(24, 4), "other k": dense(24, k=2)}) is None
    assert default_reference({"d4": sparse(24, 4), "one": dense(24), "two": dense(24)}) is None
    assert default_reference({"dense": dense(24)}) is None


def test_runs_hold_one_or_several(tmp_path: Path):
    for folder in ("one", "several/a", "several/b", "more/a", "more/c"):
        sparse(24, 4).save(tmp_path / folder)
    assert list(load_runs([tmp_path / "one"])) == ["one"]
    assert list(load_runs([tmp_path / "several", tmp_path / "one"])) == ["a", "b", "one"]
    assert list(load_runs([tmp_path / "several", tmp_path / "more"])) == ["several/a", "several/b", "more/a", "more/c"]


def test_runs_that_are_none(tmp_path: Path):
    sparse(24, 4).save(tmp_path / "one")
    (tmp_path / "empty").mkdir()
    for runs, sentence in (
        ([tmp_path / "nowhere"], "There is no folder"),
        ([tmp_path / "empty"], "There is no autoencoder in"),
        ([tmp_path / "one", tmp_path / "one"], "would both be called"),
        ([], "nothing to evaluate"),
    ):
        with pytest.raises(ExpanderError, match=sentence):
            load_runs(runs)


ORIGIN = {"text": "prose.txt", "part": "train", "column": "body", "context": 64, "bos": True, "tokens_per_batch": 100}


def test_the_text_is_the_held_out_part_of_what_was_trained_on():
    saes = {"a": random(16, **ORIGIN), "b": random(16)}
    assert text_for(saes) == TextConfig("prose.txt", part="held-out", column="body", context=64, bos=True)
    assert text_for(saes, text="other.txt", bos=False, part="all") == TextConfig(
        "other.txt", part="all", column="body", context=64, bos=False
    )
    assert text_for({"a": random(16)}, text="python") == TextConfig("python", part="held-out")


def test_autoencoders_that_disagree_are_refused_unless_told():
    saes = {"a": random(16, **ORIGIN), "b": random(16, **(ORIGIN | {"text": "b.txt"}))}
    with pytest.raises(ExpanderError, match=r"trained with text b\.txt and prose\.txt"):
        text_for(saes)
    assert text_for(saes, text="c.txt").text == "c.txt"
    assert trained_with(saes, "model") is None
    with pytest.raises(ExpanderError, match="give a text"):
        text_for({"a": random(16)})
