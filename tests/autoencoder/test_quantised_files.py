"""Autoencoders whose values are kept in a few bits."""

import copy

import pytest
import torch

import expander_sae as xs
from expander_sae.autoencoder import compress, describe
from expander_sae.errors import StorageError
from expander_sae.supports.packing import bits_needed
from tests.autoencoder.autoencoders import KINDS, WIDTH, autoencoder, same, tensor_file

QUANTISED = ("int8", "int4")


@pytest.mark.parametrize("values", QUANTISED)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_is_near_and_comes_back_the_same_again(tmp_path, kind, tied, values):
    sae = autoencoder(kind, tied=tied, latent_bias=True)
    sae.save(tmp_path / "once", values=values)
    once = xs.SparseAutoencoder.load(tmp_path / "once")
    for (name, old), (_, new) in zip(sae.named_parameters(), once.named_parameters(), strict=True):
        assert new.dtype == torch.float32
        if name.endswith("bias"):
            assert torch.equal(new, old.half().float())
        else:
            assert 0 < float(((new - old).norm() / old.norm()).detach()) < {"int8": 0.01, "int4": 0.1}[values]
    once.save(tmp_path / "twice", values=values)
    # A column of one or two entries may find its values with another scale.
    if "entries=" not in str(sae.dictionary):
        assert tensor_file(tmp_path / "twice").read_bytes() == tensor_file(tmp_path / "once").read_bytes()
    assert same(xs.SparseAutoencoder.load(tmp_path / "twice"), once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_that_of_the_biases(tmp_path, dtype):
    sae = autoencoder(latent_bias=True)
    sae.save(tmp_path, dtype=dtype, values="int4")
    loaded = xs.SparseAutoencoder.load(tmp_path)
    assert torch.equal(loaded.pre_bias, sae.pre_bias.to(dtype).to(loaded.pre_bias.dtype))
    assert torch.equal(loaded.latent_bias, sae.latent_bias.to(dtype).to(loaded.pre_bias.dtype))
    assert loaded.dictionary.dtype == loaded.pre_bias.dtype
    assert describe(tmp_path).dtype == str(dtype).removeprefix("torch.")


def test_values_in_int8_are_exact_in_float16(tmp_path):
    autoencoder().save(tmp_path, values="int8")
    halves, floats = (xs.SparseAutoencoder.load(tmp_path, dtype=dtype) for dtype in (torch.float16, None))
    assert torch.equal(halves.dictionary.values.float(), floats.dictionary.values)


def test_the_autoencoder_stays_as_it_is(tmp_path):
    sae = autoencoder(tied=False)
    before = copy.deepcopy(sae)
    sae.save(tmp_path, values="int4")
    assert same(sae, before)


@pytest.mark.parametrize("values", ["int8", "int4", None])
def test_bytes_by_part(tmp_path, values):
    """21 columns of 3 values, 20 of them on stored rows."""
    blocks = [
        autoencoder("stored rows").dictionary,
        xs.ExpanderDictionary(xs.Support.make("uniform", m=WIDTH, n=1, d=3)),
    ]
    sae = xs.SparseAutoencoder(xs.Union(blocks), xs.TopK(k=2), latent_bias=True)
    sae.save(tmp_path, values=values)
    description = describe(tmp_path)
    parts = description.bytes_by_part
    expected = {"int8": 60 + 3, "int4": 30 + 2, None: 4 * 63}[values]
    assert parts["values"] == expected
    assert parts["scales"] == (0 if values is None else 21)
    assert parts["biases"] == (WIDTH + 21) * (4 if values is None else 2)
    assert sum(parts.values()) == description.bytes_on_disk
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == description.bytes_on_disk
    assert description.bits_per_column["rows"] == 8 * parts["rows"] / 21
    assert description.row_bits_bound == pytest.approx(bits_needed(WIDTH, 20, 3) / 21)
    assert description.learned_values == 63 + WIDTH + 21
    dense = {"int8": 21 * (WIDTH + 1), "int4": 21 * (WIDTH // 2 + 1), None: 4 * 21 * WIDTH}[values]
    assert description.dense_bytes == dense + parts["biases"]


def test_bits_of_a_column(tmp_path):
    """Two bytes for each value and each row would be 112 bits and 112."""
    rows = xs.Support.make("uniform", m=2048, n=16384, d=7).rows
    sae = xs.SparseAutoencoder(xs.ExpanderDictionary(xs.Support.from_rows(rows, 2048)), xs.OMP(k=32))
    sae.save(tmp_path, values="int4")
    bits = describe(tmp_path).bits_per_column
    assert (bits["values"], bits["scales"]) == (28, 8)
    assert bits["rows"] < 67.5


def test_compress(tmp_path):
    sae = autoencoder("union", tied=False, latent_bias=True)
    sae.save(tmp_path / "large")
    result = compress(tmp_path / "large", tmp_path / "small", "int4")
    assert same(xs.SparseAutoencoder.load(tmp_path / "large"), sae)
    assert result.before == describe(tmp_path / "large")
    assert result.after == describe(tmp_path / "small")
    assert result.before.bytes_by_part["values"] == 2 * 4 * (48 + 27 + 21)
    assert result.after.bytes_by_part["values"] == 2 * (24 + 14 + 11)
    small = xs.SparseAutoencoder.load(tmp_path / "small")
    old = torch.cat([sae.dictionary.to_dense(), sae.encoder.to_dense()])
    new = torch.cat([small.dictionary.to_dense(), small.encoder.to_dense()])
    assert result.error == pytest.approx(float(((new - old).norm() / old.norm()).detach()), rel=1e-4)
    assert compress(tmp_path / "small", tmp_path / "again", "int4").error == 0


def test_compressing_an_autoencoder_of_zeros(tmp_path):
    sae = autoencoder()
    sae.dictionary.values.data.zero_()
    sae.save(tmp_path / "large")
    assert compress(tmp_path / "large", tmp_path / "small", "int8").error == 0


def test_compressing_in_place_is_refused(tmp_path):
    autoencoder().save(tmp_path / "sae")
    with pytest.raises(StorageError, match="would replace the autoencoder by one that knows less; choose another"):
        compress(tmp_path / "sae", tmp_path / "x" / ".." / "sae", "int4")
