"""Whatever happens to the bytes of a folder, it is refused, or what comes out is what went in."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.autoencoder import describe
from expander_sae.errors import StorageError
from expander_sae.files import checksum
from tests.autoencoder.autoencoders import autoencoder, same, tensor_file

EXAMPLES = settings(deadline=None, max_examples=250)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """An autoencoder and its folder."""
    provenance = {"model": "some/model", "text": "naïve\n", "metrics": {"fvu": 1.5e-05}}
    sae = autoencoder("union", xs.OMP(k=3, tolerance=1e-3), tied=False, latent_bias=True, provenance=provenance)
    folder = tmp_path_factory.mktemp("sound") / "sae"
    sae.save(folder)
    return sae, folder


@pytest.fixture(scope="module")
def check(sound, tmp_path_factory):
    """Tells whether a folder with these two files is refused; if not, what is loaded must be what was saved."""
    sae, folder = sound
    damaged = tmp_path_factory.mktemp("damaged")

    def is_refused(config, tensors):
        (damaged / "config.json").write_bytes(config)
        (damaged / tensor_file(folder).name).write_bytes(tensors)
        try:
            loaded = xs.SparseAutoencoder.load(damaged)
        except StorageError:
            with pytest.raises(StorageError):
                describe(damaged)
            return True
        assert same(loaded, sae)
        return False

    return is_refused


def files(sound):
    folder = sound[1]
    return (folder / "config.json").read_bytes(), tensor_file(folder).read_bytes()


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_sound_files_are_accepted(sound, check):
    assert not check(*files(sound))


@EXAMPLES
@given(data=st.data())
def test_a_flipped_bit_in_the_tensors(sound, check, data):
    config, tensors = files(sound)
    assert check(config, flipped(tensors, data.draw(st.integers(0, 8 * len(tensors) - 1))))


@EXAMPLES
@given(data=st.data())
def test_a_flipped_bit_in_the_config(sound, check, data):
    config, tensors = files(sound)
    bit = data.draw(st.integers(0, 8 * len(config) - 1))
    changed = flipped(config, bit)
    if not check(changed, tensors):
        # Only layout, and the case of letters in numbers and escapes, mean nothing.
        old, new = config[bit // 8 : bit // 8 + 1], changed[bit // 8 : bit // 8 + 1]
        assert (old.isspace() and new.isspace()) or old.lower() == new.lower()


@EXAMPLES
@given(data=st.data())
def test_a_file_cut_short(sound, check, data):
    config, tensors = files(sound)
    kept = data.draw(st.integers(0, len(tensors) - 1))
    assert check(config, tensors[:kept])
    kept = data.draw(st.integers(0, len(config) - 1))
    assert check(config[:kept], tensors) or kept == len(config) - 1  # the last byte is a line feed


@EXAMPLES
@given(data=st.data())
def test_a_stretch_overwritten(sound, check, data):
    config, tensors = files(sound)
    stretch = data.draw(st.binary(min_size=1, max_size=40))
    for position_in_config in (True, False):
        old = config if position_in_config else tensors
        start = data.draw(st.integers(0, len(old) - len(stretch)))
        new = old[:start] + stretch + old[start + len(stretch) :]
        refused = check(new, tensors) if position_in_config else check(config, new)
        assert refused or position_in_config or new == old


@EXAMPLES
@given(config=st.binary(max_size=200), tensors=st.binary(max_size=200))
def test_garbage(check, config, tensors):
    assert check(config, tensors)


@EXAMPLES
@given(
    config=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    ),
    name=st.sampled_from(
        [
            "m",
            "n",
            "dictionary",
            "coder",
            "tied",
            "latent_bias",
            "dtype",
            "values",
            "tensors",
            "schema_version",
            "extra",
        ]
    ),
)
def test_any_value_in_a_consistent_config(sound, check, config, name):
    """A program that is not ours may write a valid checksum over anything."""
    folder = sound[1]
    content = json.loads((folder / "config.json").read_text())
    unchanged = name in content and json.dumps(content[name]) == json.dumps(config)
    content[name] = config
    text = json.dumps({**content, "checksum": checksum(content)}).encode()
    assert unchanged or check(text, tensor_file(folder).read_bytes())
