"""What is harvested comes back, and a harvest that stopped goes on without losing or doubling a token."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.activations.store import Store, StoreError, StoreWriter, bytes_needed
from tests.activations.stores import (
    DOCUMENTS,
    ORIGIN,
    WIDTH,
    arguments,
    content,
    document,
    documents,
    give,
    harvest,
    same_tokens,
    writer,
)


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    """Only a power cut would tell the difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store of an uninterrupted harvest."""
    return harvest(tmp_path_factory.mktemp("whole") / "store")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens_per_shard", [1, 16, 7, 10_000])
def test_everything_comes_back(tmp_path, dtype, tokens_per_shard):
    store = Store.open(harvest(tmp_path / "a", dtype=dtype, tokens_per_shard=tokens_per_shard))
    expected = documents()
    assert same_tokens(store[:], expected)
    assert store[:].activations.dtype == store.dtype == dtype
    assert (store.width, store.tokens, len(store)) == (WIDTH, expected.massive.numel(), expected.massive.numel())
    assert (store.documents, store.origin, store.complete) == (DOCUMENTS, ORIGIN, True)
    assert store.shard_tokens[:-1] == [tokens_per_shard] * (len(store.shard_tokens) - 1)
    store.verify()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_slice(whole, data):
    store, expected = Store.open(whole), documents()
    start = data.draw(st.integers(0, store.tokens - 1))
    stop = data.draw(st.integers(start + 1, store.tokens))
    found = store[start:stop]
    assert torch.equal(found.token_ids, expected.token_ids[start:stop])
    assert torch.equal(found.activations, expected.activations[start:stop].half())


def test_a_slice_within_a_shard_is_not_copied(whole):
    activations = Store.open(whole)[3:5].activations
    assert activations.untyped_storage().nbytes() >= 16 * WIDTH * 2, "a view of the whole file"


@pytest.mark.parametrize("tokens", [slice(5, 5), slice(10_000, 10_001), slice(0, 8, 2), 3])
def test_slices_that_hold_nothing(whole, tokens):
    with pytest.raises(StoreError, match="store"):
        Store.open(whole)[tokens]


def test_norms_and_massive_tokens(whole):
    store = Store.open(whole)
    norms = store[:].activations.double().norm(dim=1).numpy()
    median = np.median(norms[:16])
    massive = norms > 4 * median
    assert massive.sum() == sum(number % 4 == 3 for number in range(DOCUMENTS))
    assert np.array_equal(store[:].massive.numpy(), massive)
    assert (store.norms.massive, store.norms.count) == (massive.sum(), (~massive).sum())
    assert store.norms.median == pytest.approx(median)
    assert store.norms.mean == pytest.approx(norms[~massive].mean())
    assert store.norms.mean_square == pytest.approx((norms[~massive] ** 2).mean())


def test_massive_is_decided_by_the_first_shard_alone(tmp_path):
    with writer(tmp_path, tokens_per_shard=4) as target:
        for scale in (1.0, 5.0):
            target.append(scale * torch.ones(4, WIDTH), range(4), [0] * 4, range(4))
        target.finish()
    assert Store.open(tmp_path)[:].massive.tolist() == [False] * 4 + [True] * 4


def test_documents_that_come_out_of_order_are_counted_once(tmp_path):
    with writer(tmp_path, tokens_per_shard=3) as target:
        target.append(torch.ones(7, WIDTH), range(7), [5, 1, 5, 1, 9, 5, 1], range(7))
        target.finish()
    store = Store.open(tmp_path)
    assert store.documents == 3
    assert [shard.documents for shard in store.manifest.shards] == [(1, 5), (1, 9), (1, 1)]


@pytest.mark.parametrize("width", [1, 576])
def test_bytes_needed_are_enough_and_not_many_more(tmp_path, width):
    with StoreWriter(tmp_path, width=width, dtype=torch.float16, origin=ORIGIN, tokens_per_shard=1000) as target:
        target.append(torch.ones(5500, width), range(5500), [0] * 5500, range(5500), cursor={"document": 0})
        target.finish()
    size = sum(len(data) for data in content(tmp_path).values())
    assert size <= bytes_needed(5500, width, torch.float16, 1000) <= size + 16_384


def test_the_manifest_can_be_read_by_people(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["origin"] == ORIGIN
    assert manifest["dtype"] == "float16"
    assert manifest["tokens"] == sum(shard["tokens"] for shard in manifest["shards"])
    assert manifest["library_version"] == xs.__version__


# Going on


@settings(deadline=None, max_examples=25)
@given(
    stops=st.lists(st.integers(0, DOCUMENTS), max_size=4),
    together=st.integers(1, 12),
    tokens_per_shard=st.sampled_from([5, 16, 200]),
)
def test_interrupted_anywhere_the_store_is_the_same(tmp_path_factory, stops, together, tokens_per_shard):
    place = tmp_path_factory.mktemp("stops")
    options = {"together": together, "tokens_per_shard": tokens_per_shard}
    for stop in stops:
        with writer(place / "stopped", tokens_per_shard=tokens_per_shard) as target:
            start = (target.resume_point().cursor or {"next": 0})["next"]
            stop = start + (stop - start) // together * together  # a harvest stops between two appends
            give(target, stop, together=together)
    harvest(place / "stopped", **options)
    assert content(place / "stopped") == content(harvest(place / "whole", **options))


def test_resume_point(tmp_path):
    with writer(tmp_path) as target:
        assert (target.resume_point().tokens, target.resume_point().cursor) == (0, None)
        give(target, 12)
    with writer(tmp_path) as target:
        point = target.resume_point()
        lengths = [document(number).massive.numel() for number in range(12)]
        assert point.stored == sum(lengths) // 16 * 16
        assert point.tokens == sum(lengths[: point.cursor["next"]]) <= point.stored
        assert point.stored < sum(lengths[: point.cursor["next"] + 2]), "the cursor is the last one possible"
        assert target.tokens == point.stored
        assert point.documents == int(documents().document[: point.stored].max()) + 1


def test_without_cursors_the_harvest_goes_on_by_token_number(tmp_path):
    tokens = documents()
    for _ in range(3):
        with writer(tmp_path) as target:
            start = target.resume_point().tokens
            target.append(*(values[start : start + 40] for values in arguments(tokens)))
    with writer(tmp_path) as target:
        start = target.resume_point().tokens
        assert start == target.resume_point().stored == 3 * 32
        target.append(*(values[start:] for values in arguments(tokens)))
        target.finish()
    assert same_tokens(Store.open(tmp_path)[:], tokens)


def test_a_cursor_is_kept_as_it_was_when_given(tmp_path):
    cursor = {"next": 1}
    with writer(tmp_path, tokens_per_shard=1) as target:
        target.append(*arguments(document(0)), cursor=cursor)
        cursor["next"] = 7
        assert target.resume_point().cursor == {"next": 1}


def test_stores_of_one_harvest_go_on_together(tmp_path):
    """Killed between the shards of two hookpoints, the one that is ahead drops what it has."""
    with writer(tmp_path / "ahead") as ahead, writer(tmp_path / "behind", tokens_per_shard=40) as behind:
        give(ahead, 12)
        give(behind, 12)
    with writer(tmp_path / "ahead") as ahead, writer(tmp_path / "behind", tokens_per_shard=40) as behind:
        point = min(ahead.resume_point(), behind.resume_point(), key=lambda point: point.tokens)
        assert point.tokens < ahead.resume_point().tokens
        ahead.go_back_to(point)
        for target in (ahead, behind):
            give(target, start=point.cursor["next"])
            target.finish()
    assert content(tmp_path / "ahead") == content(harvest(tmp_path / "whole"))
    assert content(tmp_path / "behind") == content(harvest(tmp_path / "other", tokens_per_shard=40))


def test_going_forward_or_back_too_late_is_refused(tmp_path):
    with writer(tmp_path / "a") as one, writer(tmp_path / "b") as other:
        give(one, 12)
        with pytest.raises(StoreError, match="go on from the store that has come the least far"):
            other.go_back_to(one.resume_point())
        with pytest.raises(StoreError, match="can only go back before the first append"):
            one.go_back_to(other.resume_point())


def test_a_complete_store_grows_when_more_is_asked_for(tmp_path):
    tokens = documents().massive.numel()
    half = Store.open(harvest(tmp_path / "a", 14)).tokens
    harvest(tmp_path / "a", tokens=tokens)
    store = Store.open(tmp_path / "a")
    assert same_tokens(store[:], documents())
    assert (store.documents, store.complete) == (DOCUMENTS, True)
    assert half in np.cumsum(store.shard_tokens), "the shards that were there stay as they are"


def test_a_harvest_that_is_not_finished_can_be_read(tmp_path):
    with writer(tmp_path) as target:
        give(target, 12)
        store = Store.open(tmp_path)
        assert not store.complete
        assert torch.equal(store[:].token_ids, documents().token_ids[: store.tokens])
        give(target, start=12)
        assert store.tokens < Store.open(tmp_path).tokens


def test_leftovers_of_killed_writers_are_removed_and_other_files_kept(tmp_path):
    with writer(tmp_path) as target:
        give(target, 12)
    count = len(Store.open(tmp_path).shard_tokens)
    for name in ("manifest.json.tmp", "shard-00001.safetensors.tmp", f"shard-{count:05d}.safetensors", "notes.txt"):
        (tmp_path / name).write_text("left")
    harvest(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "left"
    (tmp_path / "notes.txt").unlink()
    names = {shard.file for shard in Store.open(tmp_path).manifest.shards}
    assert content(tmp_path).keys() == {"manifest.json", *names}
