"""Whatever is wrong with a store, or with what it is given, is told in one sentence, and nothing is lost."""

import io
import json
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae import files
from expander_sae.activations.store import Float16Overflow, Store, StoreError, bytes_needed, check_disk
from expander_sae.files import checksum
from tests.activations.stores import DOCUMENTS, ORIGIN, WIDTH, arguments, content, documents, give, harvest, writer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store of an uninterrupted harvest."""
    return harvest(tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture
def store(whole, tmp_path):
    """A copy of that store, to damage."""
    return shutil.copytree(whole, tmp_path / "store")


def rewrite(path, change, seal=True):
    """Change the manifest, with a valid checksum or with the old one."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    if seal:
        manifest["checksum"] = checksum(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


# Opening


def refused(path, sentence):
    with pytest.raises(StoreError, match=sentence):
        Store.open(path)


def test_not_a_store(tmp_path, store):
    refused(tmp_path / "nothing", "nothing does not exist")
    refused(store / "manifest.json", "is a file, but a store is a folder")
    refused(tmp_path, "has no manifest.json, so it is not a store; give one of the stores inside it: store")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "it is not a store; harvest into it first")
    (tmp_path / "empty" / "manifest.json").write_text("[]")
    refused(tmp_path / "empty", "is not that of a store of activations")
    (tmp_path / "empty" / "manifest.json").write_text('{"for')
    refused(tmp_path / "empty", "is not readable JSON")


def test_a_newer_schema(store):
    rewrite(store, lambda manifest: manifest.update(schema_version=2, library_version="9.1"))
    refused(store, r"written by a newer expander-sae \(9.1\); update")


def test_an_edited_manifest(store):
    rewrite(store, lambda manifest: manifest["origin"].update(model="another"), seal=False)
    refused(store, r"manifest.json does not match its checksum: it was edited")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("width"),
        lambda manifest: manifest.update(width="6"),
        lambda manifest: manifest.update(width=6.0),
        lambda manifest: manifest.update(width=0),
        lambda manifest: manifest.update(dtype="float8"),
        lambda manifest: manifest.update(complete=1),
        lambda manifest: manifest.update(colour="blue"),
        lambda manifest: manifest.update(tokens=manifest["tokens"] + 1),
        lambda manifest: manifest.update(norms=None),
        lambda manifest: manifest.update(shards=[]),
        lambda manifest: manifest.update(schema_version=0),
        lambda manifest: manifest["resume"].update(tokens=manifest["tokens"] + 1),
        lambda manifest: manifest["norms"].update(mean=2.0),
        lambda manifest: manifest["shards"].pop(0),
        lambda manifest: manifest["shards"][0].update(file="../../secret"),
        lambda manifest: manifest["shards"][0].update(sha256="no"),
        lambda manifest: manifest["shards"][0].update(massive=99, tokens=16),
    ],
)
def test_a_manifest_with_a_valid_checksum_that_is_not_ours(store, change):
    rewrite(store, change)
    refused(store, "describes no store that this version of expander-sae can read")


def test_a_shard_is_missing_or_cut_short(store):
    path = store / "shard-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(store, r"shard-00002.safetensors has \d+ bytes instead of \d+: it was cut short")
    path.unlink()
    refused(store, r"shard-00002.safetensors is missing")
    with pytest.raises(StoreError, match=r"shard-00002.safetensors is missing"):
        writer(store, tokens=10_000)


def test_a_damaged_shard_is_named_when_it_is_read(store):
    for number in (1, 3):
        path = store / f"shard-0000{number}.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    opened = Store.open(store)
    assert opened[0:16].massive.numel() == 16
    with pytest.raises(StoreError, match=r"shard-00001.safetensors does not match its SHA-256"):
        opened[10:20]
    with pytest.raises(StoreError, match=r"shard-00001.safetensors, shard-00003.safetensors was damaged"):
        opened.verify()


def test_a_shard_with_other_tensors_than_the_manifest_says(store):
    rewrite(store, lambda manifest: manifest.update(width=WIDTH - 1))
    with pytest.raises(StoreError, match=r"shard-00000\.safetensors does not hold the tensors that the manifest"):
        Store.open(store)[0:5]


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(whole, tmp_path_factory, data):
    file = data.draw(st.sampled_from(sorted(path.name for path in whole.iterdir())))
    damaged = shutil.copytree(whole, tmp_path_factory.mktemp("flipped") / "store")
    content = bytearray((damaged / file).read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    (damaged / file).write_bytes(content)
    try:
        Store.open(damaged).verify()
    except StoreError:
        return
    assert Store.open(damaged).manifest == Store.open(whole).manifest, "only layout of the JSON means nothing"


def test_a_store_without_shards_has_no_norms(tmp_path):
    with writer(tmp_path), pytest.raises(StoreError, match="no complete shard yet"):
        _ = Store.open(tmp_path).norms


# Writing


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 7}, r"differs in width \(6 there, 7 here\)"),
        ({"dtype": torch.bfloat16}, r"differs in dtype \(torch.float16 there, torch.bfloat16 here\)"),
        ({"tokens_per_shard": 8}, r"differs in tokens_per_shard \(16 there, 8 here\)"),
        (
            {"origin": {**ORIGIN, "model": "other"}},
            r"origin model \('some/model' there, 'other' here\); choose another",
        ),
        ({"origin": {**ORIGIN, "revision": "a"}}, r"origin revision \(None there, 'a' here\)"),
        ({}, f"already holds this harvest, complete with {documents().massive.numel()} tokens"),
        ({"tokens": 100}, "already holds this harvest, complete with"),
    ],
)
def test_opening_another_harvest(store, changes, sentence):
    before = content(store)
    with pytest.raises(StoreError, match=sentence):
        writer(store, **changes)
    assert content(store) == before


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 0}, "width and tokens_per_shard must be at least 1"),
        ({"tokens_per_shard": 0}, "width and tokens_per_shard must be at least 1"),
        ({"dtype": torch.float32}, "dtype can be float16 or bfloat16, not float32"),
        ({"origin": {"tensor": torch.ones(1)}}, r"origin.tensor is a Tensor"),
    ],
)
def test_impossible_stores(tmp_path, changes, sentence):
    with pytest.raises(xs.ExpanderError, match=sentence):
        writer(tmp_path / "a", **changes)
    assert not (tmp_path / "a").exists()


def test_folders_that_are_not_ours_to_write(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(StoreError, match="is a file; a store is written as a folder"):
        writer(tmp_path / "file")
    with pytest.raises(StoreError, match=r"cannot be made \(Not a directory\)"):
        writer(tmp_path / "file" / "below")
    (tmp_path / "shard-00000.safetensors").write_text("of another program")
    with pytest.raises(StoreError, match=r"holds shard-00000.safetensors but no manifest.json"):
        writer(tmp_path)
    assert (tmp_path / "shard-00000.safetensors").read_text() == "of another program"


def test_a_folder_without_write_permission(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\); choose another folder"):
        writer(tmp_path)
    monkeypatch.undo()
    assert harvest(tmp_path), "the failed writer keeps nobody out"


@pytest.mark.skipif(os.name == "nt", reason="no locks on folders")
def test_two_writers_at_once(tmp_path):
    with writer(tmp_path) as target, pytest.raises(StoreError, match="is being written by another process"):
        writer(tmp_path)
    harvest(tmp_path)
    with pytest.raises(StoreError, match="is closed; open another one"):
        target.finish()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    tokens = documents()
    tokens.activations[41, 3] = value
    ids, number, position = (int(values[41]) for values in arguments(tokens)[1:])
    with writer(tmp_path) as target:
        target.append(*(values[:20] for values in arguments(tokens)))
        expected = rf"token 41 \(id {ids}, position {position} of document {number}\) has NaN or infinite values"
        with pytest.raises(StoreError, match=expected):
            target.append(*(values[20:] for values in arguments(tokens)))
        assert target.tokens == 20, "what is refused changes nothing"


def test_float16_overflow_says_what_would_hold_it(tmp_path):
    activations = torch.ones(2, WIDTH)
    activations[1, 0] = -7e4
    with writer(tmp_path / "a") as target:
        with pytest.raises(Float16Overflow, match=r"token 1 .* reaches 7e\+04, more than float16 holds .* bfloat16"):
            target.append(activations, [1, 2], [0, 0], [0, 1])
        target.append(activations[:1], [1], [0], [0])
        target.finish()
    with writer(tmp_path / "b", dtype=torch.bfloat16) as target:
        target.append(activations, [1, 2], [0, 0], [0, 1])
        target.finish()
    assert Store.open(tmp_path / "b")[:].massive.tolist() == [False, False]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"activations": torch.ones(3, WIDTH + 1)}, r"of shape \[tokens, 6\] .* not float32 of shape \[3, 7\]"),
        ({"activations": torch.ones(3, WIDTH, dtype=torch.int32)}, "must be floating-point"),
        ({"token_ids": [1, 2]}, "token_ids must be 3 integers"),
        ({"document": torch.ones(3)}, "document must be 3 integers"),
        ({"position": [0, -1, 2]}, "position must be from 0 to 2147483647, not -1 to 2"),
        ({"document": [0, 1, 2**31]}, "document must be from 0 to 2147483647, not 0 to 2147483648"),
        ({"cursor": {"state": {1, 2}}}, "cursor.state is a set"),
    ],
)
def test_appending_what_does_not_fit(tmp_path, changes, sentence):
    good = {"activations": torch.ones(3, WIDTH), "token_ids": [0] * 3, "document": [0] * 3, "position": [0] * 3}
    with writer(tmp_path) as target, pytest.raises(xs.ExpanderError, match=sentence):
        target.append(**{**good, **changes})


def test_a_harvest_of_nothing(tmp_path):
    with writer(tmp_path) as target, pytest.raises(StoreError, match="was given no token"):
        target.finish()


def test_a_harvest_that_does_not_go_on_as_it_began(tmp_path):
    with writer(tmp_path, tokens_per_shard=5) as target:
        give(target, 12, together=4)
    with writer(tmp_path, tokens_per_shard=5) as target:
        with pytest.raises(StoreError, match=r"ended at token \d+, but .* already has \d+"):
            target.finish()
        start = target.resume_point().cursor["next"]
        assert target.resume_point().tokens < target.resume_point().stored
        with pytest.raises(StoreError, match=r"does not go on as .* begins: token_ids of token \d+ differs"):
            give(target, start=start + 1)
        give(target, start=start, together=4)
        target.finish()
    assert Store.open(tmp_path).documents == DOCUMENTS


# The disk


def test_check_disk(tmp_path, monkeypatch):
    needed = bytes_needed(1_000_000, 576, torch.float16)
    assert 1.165e9 < needed < 1.18e9
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**12, 0, 900_000_000))
    check_disk(tmp_path / "not" / "there", 900_000_000)
    sentence = rf"needs 1.2 GB \({needed} bytes\), but its disk has 900.0 MB \(900000000 bytes\) free; ask for fewer"
    with pytest.raises(StoreError, match=sentence):
        check_disk(tmp_path / "not" / "there", needed)


class FullDisk:
    """Opens files on a disk that is full once some bytes were written."""

    def __init__(self, room):
        self.room = room

    def open(self, path, mode):
        return FileOnFullDisk(path, self)


class FileOnFullDisk(io.FileIO):
    def __init__(self, path, disk):
        super().__init__(path, "w")
        self.disk = disk

    def write(self, data):
        super().write(data[: self.disk.room])
        if len(data) > self.disk.room:
            raise OSError(28, "No space left on device")
        self.disk.room -= len(data)


@pytest.mark.parametrize("room", [1000, 1500, 2200, 2900, 4000, 6000])
def test_a_full_disk_keeps_complete_shards(tmp_path, monkeypatch, room):
    target = writer(tmp_path / "a")
    monkeypatch.setattr(files, "open", FullDisk(room).open, raising=False)
    sentence = r"cannot be written \(No space left on device\); its \d+ complete shards with \d+ tokens are whole"
    with target, pytest.raises(StoreError, match=sentence):
        give(target)
    monkeypatch.undo()
    assert not list((tmp_path / "a").glob("*.tmp"))
    store = Store.open(tmp_path / "a")
    store.verify()
    assert store.tokens == 16 * len(store.shard_tokens)
    with pytest.raises(StoreError, match="is closed"):
        target.append(torch.ones(1, WIDTH), [0], [0], [0])
    assert content(harvest(tmp_path / "a")) == content(harvest(tmp_path / "b"))
