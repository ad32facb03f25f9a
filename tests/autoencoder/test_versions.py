"""Folders that earlier versions wrote, and those of this one, stay readable for good."""

import copy
import json
from pathlib import Path

import pytest
import torch

import expander_sae as xs
from expander_sae.autoencoder import describe, stored_supports
from expander_sae.dictionaries.quantised import dequantise, quantise
from tests.autoencoder.autoencoders import autoencoder, make_version_1, same
from tests.autoencoder.frozen import frozen_autoencoder

FROZEN = Path(__file__).parent / "frozen_folders"


def quantised(sae, bits):
    """The autoencoder with its values as a file keeps them."""
    other = copy.deepcopy(sae)
    for name, parameter in other.named_parameters():
        if name.endswith("values"):
            parameter.data = dequantise(*quantise(parameter, bits))
    return other


@pytest.mark.parametrize(
    ("folder", "bits"),
    [("version_1_float16", None), ("version_2_float16", None), ("version_2_int8", 8), ("version_2_int4", 4)],
)
def test_frozen_folders(folder, bits):
    expected = frozen_autoencoder() if bits is None else quantised(frozen_autoencoder(), bits)
    loaded = xs.SparseAutoencoder.load(FROZEN / folder)
    assert same(loaded, expected)
    assert torch.equal(loaded.scale, expected.scale)
    assert loaded.dictionary.blocks[2].support.construction == "chosen"


def test_a_folder_of_version_1_is_saved_as_version_2(tmp_path):
    sae = autoencoder("stored rows", tied=False)
    sae.save(tmp_path)
    make_version_1(tmp_path)
    loaded = xs.SparseAutoencoder.load(tmp_path)
    assert same(loaded, sae)
    loaded.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["schema_version"] == 2
    assert same(xs.SparseAutoencoder.load(tmp_path), sae)


def test_description_of_version_1():
    description = describe(FROZEN / "version_1_float16")
    assert (description.values, description.dtype) == ("float16", "float16")
    assert description.bytes_by_part["rows"] == 2 * 7 * 3
    assert description.bytes_by_part["scales"] == 0
    assert stored_supports(FROZEN / "version_1_float16").keys() == {"blocks.1.", "blocks.2."}
