"""`expander info` says what is on disk."""

import json

import pytest
import torch

from expander_sae.activations.store import StoreWriter
from expander_sae.autoencoder import describe
from expander_sae.cli import info
from expander_sae.cli.info import Info
from tests.autoencoder.autoencoders import autoencoder


@pytest.fixture
def folder(tmp_path):
    autoencoder("union", provenance={"model": "[bold]/model", "best": None}).save(tmp_path / "sae")
    return tmp_path / "sae"


def test_json_is_the_description_and_the_statistics(folder, capsys):
    Info(path=folder, json=True).run()
    printed = json.loads(capsys.readouterr().out)
    statistics = printed.pop("support_statistics")
    assert printed == describe(folder).to_json()
    assert statistics.keys() == {"blocks.1.", "blocks.2."}
    # 9 features of degree 3 on 12 coordinates, balanced.
    degrees = {"min": 2, "mean": 2.25, "max": 3}
    assert statistics["blocks.1."]["features_per_coordinate"] == degrees
    assert statistics["blocks.1."]["uncovered_coordinates"] == 0
    assert statistics["blocks.1."]["max_overlap"] in (1, 2, 3)


def test_tables(folder, capsys):
    Info(path=folder).run()
    printed = capsys.readouterr().out
    for expected in ("TopK(k=3, signed=False)", "support blocks.1", "[bold]/model", "learned values", "uncovered"):
        assert expected in printed
    assert "skipped" not in printed
    assert "values 153.6, rows " in printed
    assert "in float32" in printed


def test_quantised_values(tmp_path, capsys):
    autoencoder("recipe").save(tmp_path, values="int4")
    Info(path=tmp_path).run()
    printed = capsys.readouterr().out
    assert "72 in int4, biases in float16" in printed
    assert "values 12.0, scales 8.0" in printed
    assert "at best" not in printed


def test_atoms_are_counted(tmp_path, capsys):
    autoencoder("composed").save(tmp_path)
    Info(path=tmp_path).run()
    printed = capsys.readouterr().out
    assert "composed: mixtures of 15 dense atoms" in printed
    assert "on average, at most 4" in printed
    assert "support mixtures" in printed
    assert "features per atom" in printed


def test_costly_overlap_is_skipped(folder, capsys, monkeypatch):
    monkeypatch.setattr(info, "OVERLAP_WORK", 0)
    Info(path=folder).run()
    assert "skipped: it would take long" in capsys.readouterr().out


def test_a_dense_dictionary_has_no_support(tmp_path, capsys):
    autoencoder("dense").save(tmp_path)
    Info(path=tmp_path).run()
    assert "support" not in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [False, True])
def test_a_store_of_activations(as_json, tmp_path, capsys):
    """A harvest tells the arithmetic of its model, or is of float32; of what is no harvest nothing is made up."""
    stores = {"bfloat16": {"model": "a/model", "precision": "bfloat16"}, "float32": {"model": "b"}, "": {"planted": 1}}
    for precision, origin in stores.items():
        folder = tmp_path / f"acts{precision}"
        with StoreWriter(folder, width=2, dtype=torch.float16, origin=origin, tokens_per_shard=2) as writer:
            fields = torch.tensor([5, 6, 7], dtype=torch.int32)
            writer.append(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 60.0]]), fields, fields, fields)
            if precision:
                writer.finish()
        Info(path=folder, json=as_json).run()
        printed = capsys.readouterr().out
        assert ("precision" in printed) == bool(precision)
        assert precision in printed
        if as_json:
            continue
        assert ("3 of 3 documents" if precision else "2 of 2 documents") in printed
        assert ("complete" if precision else "not finished") in printed
        assert ("in 2 shards" if precision else "in 1 shard ") in printed
        assert f"mean 3, median 3, {int(bool(precision))} massive tokens" in printed
