"""`expander compress` writes the smaller folder and says what it saved."""

import pytest

import expander_sae as xs
from expander_sae.autoencoder import describe
from expander_sae.cli.main import main
from tests.autoencoder.autoencoders import autoencoder


@pytest.fixture
def folder(tmp_path):
    autoencoder("stored rows").save(tmp_path / "sae")
    return tmp_path / "sae"


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_it_prints_what_it_saved(folder, tmp_path, capsys, values):
    main(["compress", str(folder), str(tmp_path / "small"), "--values", values, "--dtype", "bfloat16"])
    printed = capsys.readouterr().out
    assert f"{values} after" in printed
    assert "float32 before" in printed
    for part in ("values", "scales", "rows", "biases", "description", "bytes on disk", "times smaller"):
        assert part in printed
    assert "The values changed by 0." in printed if values == "int8" else "The values changed by" in printed
    description = describe(tmp_path / "small")
    assert (description.values, description.dtype) == (values, "bfloat16")
    assert f"{description.bytes_on_disk:,}" in printed


@pytest.mark.parametrize(("values", "bits"), [("int8", 8), ("int4", 4)])
def test_atoms_are_rounded_too(tmp_path, capsys, values, bits):
    sae = autoencoder("composed")
    sae.save(tmp_path / "sae")
    main(["compress", str(tmp_path / "sae"), str(tmp_path / "small"), "--values", values])
    before, after = describe(tmp_path / "sae"), describe(tmp_path / "small")
    kept = sae.dictionary.learned_values
    assert before.bytes_by_part["values"] >= 4 * kept
    assert after.bytes_by_part["values"] <= bits * kept / 8 + 64
    assert after.bytes_by_part["rows"] == before.bytes_by_part["rows"]


def test_the_default_is_int8_beside_float16(folder, tmp_path):
    main(["compress", str(folder), str(tmp_path / "small")])
    description = describe(tmp_path / "small")
    assert (description.values, description.dtype) == ("int8", "float16")
    assert xs.SparseAutoencoder.load(tmp_path / "small").n == 20


@pytest.mark.parametrize("arguments", [["--values", "int2"], ["--dtype", "int8"]])
def test_wrong_choices(folder, tmp_path, arguments):
    with pytest.raises(SystemExit) as ended:
        main(["compress", str(folder), str(tmp_path / "small"), *arguments])
    assert ended.value.code != 0
    assert not (tmp_path / "small").exists()


def test_in_place_is_one_sentence(folder, capsys):
    with pytest.raises(SystemExit):
        main(["compress", str(folder), str(folder)])
    assert "choose another folder." in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tokens", "5"], "tokens would change nothing without --d"),
        (["--d", "3"], "give the folder of a --store"),
    ],
)
def test_fewer_values_need_what_they_learn_from(folder, tmp_path, capsys, arguments, sentence):
    with pytest.raises(SystemExit):
        main(["compress", str(folder), str(tmp_path / "small"), *arguments])
    assert sentence in capsys.readouterr().err.replace("\n", " ")
