"""What is saved comes back: parameters bit by bit, outputs, coder, provenance."""

import copy
import json
import os

import pytest
import torch

import expander_sae as xs
from expander_sae.autoencoder import describe, folder, stored_supports
from expander_sae.autoencoder.config import known_coders
from expander_sae.errors import StorageError
from tests.autoencoder.autoencoders import KINDS, WIDTH, autoencoder, rewrite_config, same, tensor_file
from tests.uneven import uneven_support

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CODERS = (
    xs.TopK(k=3, signed=True),
    xs.Candidates(k=2, candidates=5, signed=True),
    xs.BatchTopK(k=2),
    xs.BatchTopK(k=2, threshold=0.25),
    xs.MatchingPursuit(k=3, tolerance=0.1),
    xs.OMP(k=3, tolerance=1e-5, signed=True),
    xs.NIHT(k=3, iterations=7),
    xs.HTP(k=3),
    xs.FISTA(penalty=0.3, iterations=50, k=4),
    xs.CoordinateDescent(penalty=0.1),
    xs.SSMP(k=3),
    xs.VotingDecoder(k=3, agree=3),
    xs.BasisPursuit(weighted=False, signed=True),
    xs.JumpReLU(signed=True),
)


def rounded(sae, dtype):
    """What a file in this dtype must give back."""
    return copy.deepcopy(sae).to(dtype).to(torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("latent_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_comes_back(tmp_path, kind, tied, latent_bias, dtype):
    sae = autoencoder(kind, tied=tied, latent_bias=latent_bias, provenance={"model": "m", "metrics": {"fvu": 0.1}})
    sae.save(tmp_path / "sae", dtype=dtype)
    loaded, expected = xs.SparseAutoencoder.load(tmp_path / "sae"), rounded(sae, dtype)
    assert same(loaded, expected)
    assert (loaded.tied, loaded.latent_bias is not None) == (tied, latent_bias)
    x = torch.randn(5, WIDTH, dtype=loaded.dictionary.dtype)
    assert torch.equal(loaded(x), expected(x))


@pytest.mark.parametrize("coder", CODERS, ids=lambda coder: type(coder).__name__)
def test_every_coder_comes_back(tmp_path, coder):
    sae = autoencoder(coder=coder, tied=False)
    sae.save(tmp_path)
    loaded = xs.SparseAutoencoder.load(tmp_path)
    assert loaded.coder == coder
    assert same(loaded, sae)


def test_no_coder_was_forgotten():
    assert {type(coder) for coder in CODERS} == set(known_coders().values())


@pytest.mark.parametrize("construction", ["uniform", "lines", "cyclic", "shared"])
def test_a_recipe_is_stored_instead_of_rows(tmp_path, construction):
    support = xs.Support.make(construction, m=25, n=25, d=5, seed=2**64 - 1)
    xs.SparseAutoencoder(xs.ExpanderDictionary(support), xs.TopK(k=2)).save(tmp_path)
    loaded = xs.SparseAutoencoder.load(tmp_path)
    assert loaded.dictionary.support == support
    assert loaded.dictionary.support.recipe == support.recipe
    assert b"rows" not in tensor_file(tmp_path).read_bytes()


@pytest.mark.parametrize("m", [65536, 65537])
def test_stored_rows_reach_the_last_coordinate(tmp_path, m):
    support = xs.Support.from_rows([[0, 40000, m - 1], [1, 2, 3]], m)
    xs.SparseAutoencoder(xs.ExpanderDictionary(support), xs.TopK(k=1)).save(tmp_path, dtype=torch.float16)
    loaded = xs.SparseAutoencoder.load(tmp_path)
    assert loaded.dictionary.support == support
    assert loaded.dictionary.support.construction == "learned"


def test_dtype_of_saving_and_loading(tmp_path):
    sae = autoencoder().to(torch.bfloat16)
    sae.save(tmp_path)
    assert describe(tmp_path).dtype == "bfloat16"
    assert xs.SparseAutoencoder.load(tmp_path).pre_bias.dtype == torch.float32
    again = xs.SparseAutoencoder.load(tmp_path, dtype=torch.bfloat16, device="cpu")
    assert same(again, sae)


def test_loading_gives_the_class_that_was_asked_for(tmp_path):
    class Mine(xs.SparseAutoencoder):
        pass

    autoencoder().save(tmp_path)
    assert type(Mine.load(tmp_path)) is Mine


def test_saving_does_not_change_the_autoencoder(tmp_path):
    sae = autoencoder(tied=False, latent_bias=True)
    before = copy.deepcopy(sae)
    sae.save(tmp_path, dtype=torch.float16)
    assert same(sae, before)


def test_the_same_block_twice(tmp_path):
    block = xs.DenseDictionary(4, 3)
    sae = xs.SparseAutoencoder(xs.Union([block, block]), xs.TopK(k=2))
    sae.save(tmp_path)
    assert torch.equal(xs.SparseAutoencoder.load(tmp_path).dictionary.to_dense(), sae.dictionary.to_dense())


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "deep" / "sae"
    autoencoder(seed=1).save(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "sae-0123456789ab.safetensors.tmp").write_text("left by a killed save")
    new = autoencoder("union", seed=2)
    new.save(folder)
    assert same(xs.SparseAutoencoder.load(folder), new)
    assert sorted(os.listdir(folder)) == ["config.json", "notes.txt", tensor_file(folder).name]


def test_a_reader_survives_a_save_in_between(tmp_path, monkeypatch):
    autoencoder(seed=1).save(tmp_path)
    new = autoencoder(seed=2)
    original = folder._read_tensors

    def replaced_meanwhile(path, config):
        monkeypatch.setattr(folder, "_read_tensors", original)
        new.save(tmp_path)
        return original(path, config)

    monkeypatch.setattr(folder, "_read_tensors", replaced_meanwhile)
    assert same(xs.SparseAutoencoder.load(tmp_path), new)


def test_config_is_readable_and_says_what_there_is(tmp_path):
    autoencoder("stored rows", provenance={"model": "some/model", "tokens": 10}).save(tmp_path, dtype=torch.float16)
    text = (tmp_path / "config.json").read_text()
    config = json.loads(text)
    assert text.count("\n") > 20
    assert config["dictionary"]["support"]["stored"]
    assert config["coder"] == {"name": "TopK", "parameters": {"k": 3, "signed": False}}
    assert config["provenance"] == {"model": "some/model", "tokens": 10}
    assert config["tensors"]["bytes"] == tensor_file(tmp_path).stat().st_size


@pytest.mark.parametrize(("latent_bias", "at_most"), [(False, 240_000), (True, 270_000)])
def test_size_of_a_folder(tmp_path, latent_bias, at_most):
    support = xs.Support.make("uniform", m=2048, n=16384, d=7)
    sae = xs.SparseAutoencoder(xs.ExpanderDictionary(support), xs.TopK(k=32), latent_bias=latent_bias)
    sae.save(tmp_path, dtype=torch.float16)
    description = describe(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == description.bytes_on_disk <= at_most
    assert description.dense_bytes == 2 * (2048 * 16384 + 2048 + 16384 * latent_bias)
    assert description.ratio >= 250


def test_description(tmp_path):
    provenance = {"model": "m", "layers": [1, 2], "note": None}
    autoencoder("union", xs.OMP(k=3), tied=False, latent_bias=True, provenance=provenance).save(tmp_path)
    description = describe(tmp_path)
    assert (description.m, description.n, description.d) == (WIDTH, 20, None)
    assert description.learned_values == 2 * (4 * WIDTH + 16 * 3) + WIDTH + 20
    assert description.dense_bytes == 4 * (2 * WIDTH * 20 + WIDTH + 20)
    assert description.coder["parameters"] == {"k": 3, "tolerance": 0.0, "signed": False}
    assert [block["kind"] for block in description.dictionary["blocks"]] == ["dense", "expander", "expander"]
    assert description.provenance == provenance
    assert description.library_version == xs.__version__
    assert json.loads(json.dumps(description.to_json())) == description.to_json()


def test_supports_of_the_blocks(tmp_path):
    sae = autoencoder("union")
    sae.save(tmp_path)
    supports = stored_supports(tmp_path)
    assert supports == {"blocks.1.": sae.dictionary.blocks[1].support, "blocks.2.": sae.dictionary.blocks[2].support}


def test_description_does_not_build_the_support(tmp_path, monkeypatch):
    autoencoder().save(tmp_path)
    monkeypatch.setattr(xs.Support, "make", None)
    assert describe(tmp_path).d == 3
    tensor_file(tmp_path).unlink()
    with pytest.raises(StorageError, match="is missing"):
        describe(tmp_path)


def test_columns_of_different_lengths_take_no_more_than_they_hold(tmp_path):
    support = uneven_support(2048, 4096, 28)
    xs.SparseAutoencoder(xs.ExpanderDictionary(support), xs.TopK(8)).save(tmp_path / "sae", dtype=torch.float16)
    found = describe(tmp_path / "sae")
    assert found.learned_values == support.entries + 2048
    assert xs.SparseAutoencoder.load(tmp_path / "sae").learned_values == found.learned_values
    assert found.bytes_by_part["values"] == 2 * support.entries
    assert found.d is None
    # Degrees up to 28 take five bits.
    assert found.bits_per_column["rows"] < 1.08 * found.row_bits_bound + 5


def test_rows_and_values_of_different_lengths_are_refused(tmp_path):
    autoencoder("uneven").save(tmp_path / "sae")
    rewrite_config(tmp_path / "sae", lambda config: config["dictionary"].update(entries=1))
    with pytest.raises(StorageError, match="save the autoencoder again"):
        xs.SparseAutoencoder.load(tmp_path / "sae")
