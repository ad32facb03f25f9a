"""Every way in which a folder can be wrong, or an autoencoder unfit for one, has a sentence."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import expander_sae as xs
from expander_sae.autoencoder import describe
from expander_sae.errors import StorageError
from tests.autoencoder.autoencoders import (
    autoencoder,
    make_version_1,
    replace_tensor_bytes,
    rewrite_config,
    rewrite_tensors,
    same,
    tensor_file,
)

PACKED = ("rows.remainders", "rows.quotients", "rows.order")


@pytest.fixture
def folder(tmp_path):
    autoencoder("stored rows", tied=False, latent_bias=True).save(tmp_path / "sae")
    return tmp_path / "sae"


@pytest.fixture
def recipe_folder(tmp_path):
    autoencoder("recipe").save(tmp_path / "sae")
    return tmp_path / "sae"


def refused(folder, sentence):
    """The message of `load`; `describe` says the same unless only the support is wrong."""
    with pytest.raises(StorageError, match=sentence) as error:
        xs.SparseAutoencoder.load(folder)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# Folders that are none of ours


def test_path_missing(tmp_path):
    refused(tmp_path / "nowhere", "nowhere does not exist")


def test_path_is_a_file(tmp_path):
    (tmp_path / "file").write_text("hello")
    refused(tmp_path / "file", "is a file, but an autoencoder is a folder")


def test_no_config(tmp_path):
    refused(tmp_path, r"has no config\.json; only folders that save\(\) wrote")


@pytest.mark.parametrize(
    ("weights", "maker"), [("sae_weights.safetensors", "SAELens;"), ("sae.safetensors", "SAELens or sparsify;")]
)
def test_folders_of_other_libraries(tmp_path, weights, maker):
    (tmp_path / "cfg.json").write_text("{}")
    (tmp_path / weights).write_bytes(b"")
    refused(tmp_path, f"its cfg.json looks like one of {maker}")


@pytest.mark.parametrize("text", ['{"model_type": "gpt2"}', "[1, 2]", "null", '{"format": "something"}'])
def test_config_of_something_else(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "does not describe an expander-sae autoencoder")
    with pytest.raises(StorageError, match="it is not overwritten"):
        autoencoder().save(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


# Damage


@pytest.mark.parametrize("keep", [0, 1, 100, 500])
def test_config_cut_short(folder, keep):
    path = folder / "config.json"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, "not readable JSON: it is damaged or cut short")


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"[" * 100_000, b"\0" * 10, b"9" * 10_000])
def test_config_is_garbage(folder, garbage):
    (folder / "config.json").write_bytes(garbage)
    refused(folder, "not readable JSON")


@pytest.mark.parametrize(("old", "new"), [('"n": 20', '"n": 21'), ('"k": 3', '"k": 4'), ('"k": 3', '"k": 1e999')])
def test_config_edited(folder, old, new):
    path = folder / "config.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    refused(folder, "does not match its checksum: it was edited or damaged")


def test_layout_of_the_config_does_not_matter(folder):
    path = folder / "config.json"
    expected = xs.SparseAutoencoder.load(folder)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert same(xs.SparseAutoencoder.load(folder), expected)


def test_newer_schema(folder):
    rewrite_config(folder, lambda config: config.update(schema_version=3, library_version="9.1"))
    refused(folder, r"newer version of expander-sae \(9\.1\); update")


@pytest.mark.parametrize("version", [0, True, "1", None, 1.0])
def test_unknown_schema(folder, version):
    rewrite_config(folder, lambda config: config.update(schema_version=version))
    refused(folder, "unknown schema version")


def test_tensor_file_missing(folder):
    tensor_file(folder).unlink()
    refused(folder, r"\.safetensors is missing; copy the whole folder again")


@pytest.mark.parametrize("cut", [1, 100])
def test_tensor_file_cut_short(folder, cut):
    path = tensor_file(folder)
    path.write_bytes(path.read_bytes()[:-cut])
    refused(folder, "instead of .*: it was cut short or changed")


@pytest.mark.parametrize("position", [0, 9, -1])
def test_tensor_file_with_one_bit_flipped(folder, position):
    path = tensor_file(folder)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    refused(folder, "does not match its SHA-256")


# Files that are consistent but wrong: hand-made, or written by a program that is not ours


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "sae.safetensors", "sae-0123456789ab.safetensors"])
def test_tensor_file_elsewhere(folder, file):
    rewrite_config(folder, lambda config: config["tensors"].update(file=file))
    refused(folder, r"which is not the sae-<hash>\.safetensors beside it")


def test_tensor_file_is_not_safetensors(folder):
    replace_tensor_bytes(folder, b"x" * 100)
    refused(folder, "tensor file in .* is not readable")


@pytest.mark.parametrize("name", ["values", "encoder_values", "pre_bias", "latent_bias", *PACKED])
def test_tensor_missing(folder, name):
    rewrite_tensors(folder, lambda tensors: tensors.pop(name))
    refused(folder, f"misses {name}; save")


def test_tensor_unexpected(folder):
    rewrite_tensors(folder, lambda tensors: tensors.update(extra=torch.zeros(2)))
    refused(folder, "has the unexpected extra; save")


@pytest.mark.parametrize("name", ["values", "encoder_values", "pre_bias", "latent_bias"])
def test_tensor_of_wrong_shape(folder, name):
    rewrite_tensors(folder, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    refused(folder, rf"{name} in .* is .* but the config asks for")


@pytest.mark.parametrize(("name", "dtype"), [("values", torch.float16), *((name, torch.int32) for name in PACKED)])
def test_tensor_of_wrong_dtype(folder, name, dtype):
    rewrite_tensors(folder, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    refused(folder, f"{name} in .* is {str(dtype)[6:]} .* but the config asks for")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["values", "encoder_values", "pre_bias", "latent_bias"])
def test_tensor_not_finite(folder, name, bad):
    rewrite_tensors(folder, lambda tensors: tensors[name].view(-1)[-1:].fill_(bad))
    refused(folder, f"{name} has values that are not finite")


def swapped(rows):
    rows = rows.to(torch.int32)
    return rows.flip(1).contiguous().to(torch.uint16)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: swapped(rows), "does not give the rows .* of unsorted rows"),
        (lambda rows: torch.full_like(rows, 3), "cannot be made .* touches a coordinate twice"),
        (lambda rows: torch.full_like(rows, 60000), "cannot be made .* must lie between 0 and m - 1 = 11"),
        (lambda rows: torch.arange(3).repeat(len(rows), 1).to(torch.uint16), r"does not give the rows .*\(SHA-256"),
    ],
    ids=["unsorted", "repeated", "outside", "others"],
)
def test_rows_of_version_1_wrong(folder, change, sentence):
    make_version_1(folder)
    rewrite_tensors(folder, lambda tensors: tensors.update(rows=change(tensors["rows"])))
    refused(folder, sentence)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("rows.remainders", lambda old: old[:, :-1], "rows cannot be unpacked, save .* remainders of packed rows must"),
        ("rows.quotients", lambda old: old[:-1], "rows cannot be unpacked, .* must be 60 numbers"),
        ("rows.quotients", lambda old: torch.zeros_like(old), "rows cannot be unpacked, .* 60 numbers, not 0"),
        ("rows.order", lambda old: torch.zeros(4, 2, dtype=torch.uint8), "rows cannot be unpacked, .* 12 coordinates"),
        ("rows.remainders", lambda old: old ^ 128, "rows cannot be unpacked, .* between 0 and 11, but one is 12"),
        ("rows.remainders", lambda old: torch.zeros_like(old), r"does not give the rows .*\(SHA-256"),
    ],
)
def test_packed_rows_wrong(folder, name, change, sentence):
    rewrite_tensors(folder, lambda tensors: tensors.update({name: change(tensors[name]).contiguous()}))
    refused(folder, sentence)


def test_version_1_knows_no_quantised_values(folder):
    rewrite_config(folder, lambda config: config.update(schema_version=1))
    refused(folder, "unknown entries 'values'")


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_quantised_tensors_wrong(tmp_path, values):
    autoencoder("recipe", tied=False).save(tmp_path, values=values)
    sound = tensor_file(tmp_path).read_bytes()
    for name in ("values.integers", "values.scales", "encoder_values.integers", "encoder_values.scales"):
        rewrite_tensors(tmp_path, lambda tensors, name=name: tensors.pop(name))
        refused(tmp_path, f"misses {name}; save")
        replace_tensor_bytes(tmp_path, sound)
        rewrite_tensors(tmp_path, lambda tensors, name=name: tensors.update({name: tensors[name][:-1].clone()}))
        refused(tmp_path, rf"{name} in .* is u?int8 .* but the config asks for u?int8 \[")
        replace_tensor_bytes(tmp_path, sound)
    rewrite_config(tmp_path, lambda config: config.update(values="float16"))
    refused(tmp_path, "misses encoder_values, values; save")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"construction": "moonlight"}, "support 'moonlight' .* cannot be made .* update it: .* is not one of"),
        ({"parameters": {"phase": 1}}, "cannot be made .* has no parameter 'phase'"),
        ({"seed": -1}, "cannot be made .* seed must be between"),
        ({"seed": 5}, r"does not give the rows that the file was saved with \(SHA-256"),
        ({"sha256": "0" * 64}, "does not give the rows that the file was saved with .* instead of 0000"),
        ({"sha256": None}, "'sha256' must be of type str, not None"),
        ({"stored": 0}, "'stored' must be of type bool, not 0"),
        ({"extra": 0}, "'support' has the unknown entries 'extra'"),
    ],
)
def test_recipe_wrong(recipe_folder, changes, sentence):
    rewrite_config(recipe_folder, lambda config: config["dictionary"]["support"].update(changes))
    refused(recipe_folder, sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scale": 0.0}, "scale must be finite and above zero, not 0.0"),
        ({"scale": -1.0}, "scale must be finite and above zero"),
        ({"scale": "1"}, "'scale' must be of type float, not '1'"),
        ({"tied": 1}, "'tied' must be of type bool, not 1"),
        ({"m": 13}, "m and n are not those of the dictionary"),
        ({"n": True}, "'n' must be of type int, not True"),
        ({"m": 0}, "'m' must be at least 1, not 0"),
        ({"dtype": "int8"}, "the dtype 'int8' is not one of float16"),
        ({"values": "int2"}, "'values' is 'int2', not float32 or int8 or int4; update"),
        ({"values": "float16"}, "'values' is 'float16', not float32 or int8 or int4; update"),
        ({"values": None}, "'values' must be of type str, not None"),
        ({"provenance": []}, r"'provenance' must be of type dict, not \[\]"),
        ({"dictionary": 3}, "'dictionary' must be of type dict, not 3"),
        ({"dictionary": {"kind": "quantum"}}, "the kind 'quantum' is unknown; update"),
        ({"dictionary": {"kind": "union", "m": 12, "n": 20, "blocks": []}}, "sizes of the blocks do not add up"),
        ({"dictionary": {"kind": "union", "m": 12, "n": 20, "blocks": [7]}}, "block 0 must be an object, not 7"),
        ({"dictionary": {"kind": "dense", "m": 12, "n": 20, "d": 3}}, "unknown entries 'd'"),
        ({"coder": {"name": "Magic", "parameters": {}}}, "coder 'Magic' is not known here; update"),
        ({"coder": {"name": "Coder", "parameters": {}}}, "coder 'Coder' is not known here"),
        ({"coder": {"name": "TopK", "parameters": {"k": 3, "speed": 2}}}, "TopK has no parameter speed here"),
        ({"coder": {"name": "TopK", "parameters": {}}}, "the coder TopK cannot have these parameters: "),
        ({"coder": {"name": "TopK", "parameters": {"k": 0}}}, "cannot have these parameters: k must be at least 1"),
        ({"coder": {"name": "TopK", "parameters": {"k": "3"}}}, "the coder TopK cannot have these parameters: "),
        ({"colour": "blue"}, "unknown entries 'colour'"),
        ({"tensors": []}, r"'tensors' must be an object, not \[\]"),
    ],
)
def test_config_wrong(recipe_folder, changes, sentence):
    rewrite_config(recipe_folder, lambda config: config.update(changes))
    refused(recipe_folder, sentence)
    with pytest.raises(StorageError, match=sentence):
        describe(recipe_folder)


@pytest.mark.parametrize(
    "name", ["m", "n", "dictionary", "coder", "tied", "latent_bias", "scale", "dtype", "values", "provenance"]
)
def test_config_incomplete(recipe_folder, name):
    rewrite_config(recipe_folder, lambda config: config.pop(name))
    refused(recipe_folder, f"has no entry '{name}'")


def test_dtype_of_loading(folder):
    with pytest.raises(StorageError, match="dtype can be float16, bfloat16, float32, float64, not int32"):
        xs.SparseAutoencoder.load(folder, dtype=torch.int32)


# Autoencoders that a file cannot hold


def saving_refused(sae, path, sentence, **options):
    with pytest.raises(StorageError, match=sentence):
        sae.save(path, **options)
    assert not Path(path).is_dir()


def test_saving_over_a_file(tmp_path):
    (tmp_path / "file").write_text("hello")
    saving_refused(autoencoder(), tmp_path / "file", "is a file; an autoencoder is saved as a folder")
    assert (tmp_path / "file").read_text() == "hello"


def test_saving_in_an_impossible_dtype(tmp_path):
    saving_refused(autoencoder(), tmp_path / "a", "dtype can be .* not int8", dtype=torch.int8)


def test_saving_in_an_impossible_quantisation(tmp_path):
    saving_refused(autoencoder(), tmp_path / "a", "can be quantised to int8 or int4, not 'int2'", values="int2")
    saving_refused(autoencoder(), tmp_path / "a", "not 'float16'; a float type is a dtype", values="float16")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_quantising_values_that_are_not_finite(tmp_path, bad):
    sae = autoencoder()
    sae.dictionary.values.data[0, 0] = bad
    saving_refused(sae, tmp_path / "a", "values has values that are not finite", values="int8")


def test_quantising_values_that_are_too_large(tmp_path):
    sae = autoencoder(tied=False)
    sae.untied_encoder.values.data[0, 0] = -1e5
    saving_refused(sae, tmp_path / "a", "encoder_values does not fit int4, .* only up to 1680", values="int4")


def test_saving_values_too_large_for_the_dtype(tmp_path):
    sae = autoencoder()
    sae.pre_bias.data[2] = -1e6
    saving_refused(sae, tmp_path / "a", r"pre_bias reaches 1e\+06, too much for float16", dtype=torch.float16)
    sae.save(tmp_path / "a", dtype=torch.bfloat16)
    with pytest.raises(StorageError, match=r"pre_bias reaches .* too much for float16"):
        xs.SparseAutoencoder.load(tmp_path / "a", dtype=torch.float16)


def test_saving_values_that_are_not_finite(tmp_path):
    sae = autoencoder("union")
    sae.dictionary.blocks[1].values.data[0, 0] = float("nan")
    saving_refused(sae, tmp_path / "a", r"blocks\.1\.values has values that are not finite")


def test_saving_a_bad_scale(tmp_path):
    sae = autoencoder()
    sae.scale.fill_(float("inf"))
    saving_refused(sae, tmp_path / "a", "scale must be finite")


def test_saving_several_dtypes(tmp_path):
    sae = autoencoder()
    sae.pre_bias.data = sae.pre_bias.data.double()
    saving_refused(sae, tmp_path / "a", r"several dtypes \(float32, float64\)")
    sae.save(tmp_path / "a", dtype=torch.float32)


@pytest.mark.parametrize(
    ("provenance", "sentence"),
    [
        ({"path": Path("x")}, r"provenance\.path is a \w+Path"),
        ({"metrics": {"fvu": [1.0, float("nan")]}}, r"provenance\.metrics\.fvu\[1\] is nan"),
        ({"layers": {1: "a"}}, r"provenance\.layers has the key 1"),
        ({"loss": torch.zeros(1)}, r"provenance\.loss is a Tensor"),
        ({"set": {1}}, r"provenance\.set is a set"),
    ],
)
def test_saving_provenance_that_is_not_json(tmp_path, provenance, sentence):
    saving_refused(autoencoder(provenance=provenance), tmp_path / "a", sentence)


def test_saving_a_coder_of_the_user(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Mine(xs.TopK):
        pass

    @dataclasses.dataclass(frozen=True)
    class TopK(xs.TopK):
        """Has the name of one of ours."""

    saving_refused(autoencoder(coder=Mine(k=3)), tmp_path / "a", "coder Mine is not one of this library's")
    saving_refused(autoencoder(coder=TopK(k=3)), tmp_path / "a", "coder TopK is not one of this library's")


def test_saving_a_dictionary_of_the_user(tmp_path):
    class Mine(xs.DenseDictionary):
        pass

    sae = xs.SparseAutoencoder(Mine(4, 5), xs.TopK(k=3))
    saving_refused(sae, tmp_path / "a", "A Mine cannot be saved")


def test_saving_parameters_that_have_no_place(tmp_path):
    sae = autoencoder()
    sae.extra = torch.nn.Parameter(torch.zeros(3))
    saving_refused(sae, tmp_path / "a", "no place for the parameters extra")


def test_saving_rows_that_are_not_the_supports(tmp_path):
    sae = autoencoder()
    sae.dictionary.rows = sae.dictionary.rows.flip(0)
    saving_refused(sae, tmp_path / "a", "rows of the dictionary are not those of its support")


def test_saving_an_encoder_with_another_support(tmp_path):
    sae = autoencoder(tied=False, seed=1)
    sae.untied_encoder = autoencoder(seed=2).dictionary
    saving_refused(sae, tmp_path / "a", "encoder has another support")


def test_a_failed_write_keeps_the_old_and_cleans_up(folder, monkeypatch):
    expected = xs.SparseAutoencoder.load(folder)
    before = sorted(path.name for path in folder.iterdir())

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(StorageError, match=r"cannot be written \(No space left"):
        autoencoder(seed=3).save(folder)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert same(xs.SparseAutoencoder.load(folder), expected)


def test_errors_are_errors_of_this_library(tmp_path):
    with pytest.raises(xs.ExpanderError):
        xs.SparseAutoencoder.load(tmp_path)
