"""Training sees every token once per epoch, in an order that the seed alone decides, whatever stops it in between."""

import gc
import hashlib
import json
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.activations.store import Batches, Store, StoreError, StoreWriter
from expander_sae.activations.store.batches import TokenStream
from expander_sae.activations.store.order import Order, Position
from expander_sae.activations.store.prefetch import Prefetched
from tests.activations.stores import ORIGIN, harvest

TOKENS = 230
MASSIVE = {3, 17, 18, 100, 229}
ORDERS = settings(deadline=None, max_examples=40)


def numbered(path, tokens, massive=(), tokens_per_shard=50):
    """A store in which the first coordinate of a token is its number; massive ones have a second coordinate."""
    activations = torch.stack([torch.arange(tokens), torch.zeros(tokens), torch.full((tokens,), 600)], dim=1).float()
    activations[list(massive), 1] = 6e4
    with StoreWriter(path, width=3, dtype=torch.float16, origin=ORIGIN, tokens_per_shard=tokens_per_shard) as target:
        target.append(activations, [0] * tokens, [0] * tokens, range(tokens))
        target.finish()
    return Store.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Token numbers, in five shards, five of them massive."""
    return numbered(tmp_path_factory.mktemp("numbered") / "store", TOKENS, MASSIVE)


def numbers(batches):
    """The token numbers of batches, one list for each."""
    return [[int(number) for number in batch[:, 0]] for batch in batches]


def flat(lists):
    return [number for numbers in lists for number in numbers]


def test_the_store_is_as_the_tests_need_it(store):
    assert set(torch.nonzero(store[:].massive).flatten().tolist()) == MASSIVE
    assert len(store.shard_tokens) == 5


@ORDERS
@given(
    batch=st.integers(1, 300),
    window_tokens=st.integers(1, 400),
    seed=st.integers(0, 2**64 - 1),
    epochs=st.integers(1, 3),
    skip_massive=st.booleans(),
)
def test_every_token_once_per_epoch(store, batch, window_tokens, seed, epochs, skip_massive):
    options = {"batch": batch, "window_tokens": window_tokens, "seed": seed, "skip_massive": skip_massive}
    with Batches(store, epochs=epochs, **options) as batches:
        seen = numbers(batches)
        per_epoch = batches.tokens_per_epoch
    assert {len(numbers) for numbers in seen[:-1]} <= {batch}
    expected = sorted(set(range(TOKENS)) - (MASSIVE if skip_massive else set()))
    stream = flat(seen)
    assert len(stream) == epochs * per_epoch
    for epoch in range(epochs):
        assert sorted(stream[epoch * per_epoch : (epoch + 1) * per_epoch]) == expected


@ORDERS
@given(
    shards=st.lists(st.integers(1, 300), min_size=1, max_size=12),
    window_tokens=st.integers(1, 500),
    epoch=st.integers(0, 2**30),
)
def test_windows_share_out_all_tokens_and_are_bounded(shards, window_tokens, epoch):
    order = Order(shards, window_tokens, seed=5)
    edges = {0, *np.cumsum(shards).tolist()}
    seen = []
    for window in range(order.windows):
        blocks = [range(begin, end) for begin, end in order.blocks(epoch, window)]
        assert 0 < sum(map(len, blocks)) <= window_tokens
        assert all(not edges & set(block[1:]) for block in blocks), "a block lies in one shard"
        seen += flat(blocks)
    assert sorted(seen) == list(range(sum(shards)))


@ORDERS
@given(data=st.data(), window_tokens=st.sampled_from([1, 40, 64, 500]), batch=st.sampled_from([1, 7, 32, 250]))
def test_resumed_at_any_step_the_batches_are_the_same(store, data, window_tokens, batch):
    options = {"batch": batch, "window_tokens": window_tokens, "seed": 3, "epochs": 2}
    with Batches(store, **options) as batches:
        states = [batches.state_dict()]
        expected = []
        for activations in batches:
            expected.append(activations)
            states.append(batches.state_dict())
    step = data.draw(st.integers(0, len(expected)))
    with Batches(store, **options) as resumed:
        resumed.load_state_dict(json.loads(json.dumps(states[step])))
        assert resumed.state_dict() == states[step]
        found = list(resumed)
    assert len(found) == len(expected) - step
    assert all(torch.equal(one, other) for one, other in zip(found, expected[step:], strict=True))


def test_states_are_small_and_tell_the_last_batch_that_was_given(store):
    with Batches(store, batch=8, seed=0) as batches:
        for _ in range(3):
            next(batches)
        time.sleep(0.05)  # what is read ahead must not count
        assert batches.state_dict()["offset"] == 24
        assert len(json.dumps(batches.state_dict())) < 200


@ORDERS
@given(
    world=st.integers(1, 5),
    per_rank=st.integers(1, 20),
    window_tokens=st.sampled_from([16, 64, 500]),
)
def test_ranks_share_out_the_batches_of_one_process(store, world, per_rank, window_tokens):
    options = {"batch": world * per_rank, "window_tokens": window_tokens, "seed": 11, "epochs": 1}
    with Batches(store, **options) as batches:
        expected, state = numbers(batches), batches.state_dict()
    parts = []
    for rank in range(world):
        with Batches(store, **options, rank=rank, world=world) as batches:
            parts.append(numbers(batches))
            assert batches.state_dict() == state
    assert [flat(parts_of_batch) for parts_of_batch in zip(*parts, strict=True)] == expected
    assert all(len(part) == per_rank for rank in parts for part in rank[:-1])


def test_the_order_is_random_and_set_by_the_seed(store):
    def stream(**options):
        with Batches(store, **{"batch": 50, "seed": 0, "window_tokens": 128, "epochs": 2, **options}) as batches:
            return flat(numbers(batches))

    first = stream()
    assert first == stream() == stream(batch=7)
    assert len({tuple(stream(seed=seed)) for seed in (0, 1, 2**32, 2**64 - 1)}) == 4
    assert first[: len(first) // 2] != first[len(first) // 2 :], "epochs differ"
    steps = np.abs(np.diff(first))
    assert (steps == 1).mean() < 0.1, "neighbours do not stay together"


def test_a_window_mixes_tokens_of_many_shards(tmp_path):
    store = numbered(tmp_path, 2000, tokens_per_shard=100)
    with Batches(store, batch=64, seed=0, window_tokens=640) as batches:
        shards = {number // 100 for number in numbers([next(batches)])[0]}
    assert len(shards) >= 10


def test_the_order_never_changes(store):
    """Checkpoints of earlier releases must go on with the same batches."""
    order = Order([5000, 70_000, 1], 4096, seed=2**63 + 1)
    parts = [order.blocks(3, order.windows - 1), order.tokens(3, 2, 4000), order.blocks(0, 0)]
    digest = hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()
    assert digest[:16] == "a2b636e70d459356"


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_are_those_of_the_store(tmp_path, stored, dtype):
    store = Store.open(harvest(tmp_path, dtype=stored))
    with Batches(store, batch=10, seed=0, epochs=1, skip_massive=False, dtype=dtype) as batches:
        found = torch.cat(list(batches))
    assert found.dtype == dtype
    expected = store[:].activations.to(dtype)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


@pytest.mark.parametrize("batch", [1, 16, 100])
def test_at_most_two_windows_are_in_memory(tmp_path, monkeypatch, batch):
    """What was read and not yet given out never exceeds two windows and the batch in the making."""
    store = numbered(tmp_path, 2000, tokens_per_shard=100)
    read, largest = 0, 0
    whole_read = TokenStream.read

    def counting(self, begin, end):
        nonlocal read, largest
        read += end - begin
        largest = max(largest, read - given)
        return whole_read(self, begin, end)

    monkeypatch.setattr(TokenStream, "read", counting)
    order = Order(store.shard_tokens, 128, seed=0)
    stream = TokenStream(store, order, batch, False, 2, torch.float32, 0, 1)
    given = 0
    for activations, _ in stream.batches(Position()):
        given += len(activations)
    assert given == read == 4000
    assert 128 < largest <= 2 * 128 + batch


def test_blocks_of_the_next_window_are_read_bit_by_bit(tmp_path, monkeypatch):
    """So that no batch has to wait for a whole window."""
    store = numbered(tmp_path, 2000, tokens_per_shard=100)
    reads = []
    whole_read = TokenStream.read
    monkeypatch.setattr(
        TokenStream, "read", lambda self, begin, end: (reads.append(end - begin), whole_read(self, begin, end))[1]
    )
    stream = TokenStream(store, Order(store.shard_tokens, 320, seed=0), 10, False, None, torch.float32, 0, 1)
    batches, counts = stream.batches(Position()), []
    for _ in range(150):
        before = sum(reads)
        next(batches)
        counts.append(sum(reads) - before)
    assert max(counts[1:]) <= 20, "a batch of 10 needs one block of 10 more, or two where windows differ in size"


# The thread


def live_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_errors_in_the_thread_reach_the_consumer(tmp_path):
    store = numbered(tmp_path, 400)
    path = tmp_path / "shard-00004.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with (
        Batches(store, batch=10, seed=0, window_tokens=32, epochs=1) as batches,
        pytest.raises(StoreError, match=r"shard-00004.safetensors does not match its SHA-256"),
    ):
        list(batches)
    assert not live_threads()


def test_items_before_an_error_still_come():
    def source():
        yield from (1, 2, 3)
        raise KeyError("broken")

    prefetched = Prefetched(source(), depth=2)
    assert [next(prefetched) for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(KeyError, match="broken"):
            next(prefetched)


def test_reading_ahead_is_bounded():
    produced = []

    def source():
        for number in range(100):
            produced.append(number)
            yield number

    prefetched = Prefetched(source(), depth=3)
    assert next(prefetched) == 0
    time.sleep(0.05)
    assert len(produced) <= 1 + 3 + 1, "given, ready, and one in the making"
    assert [*prefetched] == list(range(1, 100))
    prefetched.close()


def test_closing_and_forgetting_end_the_thread(store):
    batches = Batches(store, batch=10, seed=0)
    first = next(batches)
    assert live_threads()
    batches.close()
    assert not live_threads()
    second = next(batches)
    with Batches(store, batch=10, seed=0) as others:
        assert torch.equal(next(others), first)
        assert torch.equal(next(others), second), "closing loses no batch"
    del batches
    gc.collect()
    assert not live_threads()


# Refusals


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"window_tokens": 0}, "window_tokens must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"rank": 2, "world": 2}, "rank must be from 0 to 1"),
        ({"batch": 10, "world": 3}, "10 tokens cannot be split evenly over 3 ranks"),
    ],
)
def test_impossible_batches(store, changes, sentence):
    with pytest.raises(StoreError, match=sentence):
        Batches(store, **{"batch": 8, "seed": 0, **changes})


def test_positions_of_another_order(store, tmp_path):
    state = Batches(store, batch=8, seed=0).state_dict()
    with pytest.raises(StoreError, match=r"another order of tokens \(seed, skip_massive differs"):
        Batches(store, batch=8, seed=1, skip_massive=False).load_state_dict(state)
    with pytest.raises(StoreError, match=r"another order of tokens \(store, window_tokens differs"):
        Batches(numbered(tmp_path, 100), batch=8, seed=0).load_state_dict(state)
    for wrong in ({}, {**state, "epoch": -1}, {**state, "offset": 1.5}, {**state, "window": True}):
        with pytest.raises(StoreError, match="The position is"):
            Batches(store, batch=8, seed=0).load_state_dict(wrong)
    Batches(store, batch=16, seed=0).load_state_dict(state)


def test_a_store_without_a_token_yet(tmp_path):
    with (
        StoreWriter(tmp_path, width=3, dtype=torch.float16, origin=ORIGIN),
        pytest.raises(StoreError, match="no complete shard yet"),
    ):
        Batches(Store.open(tmp_path), batch=8, seed=0)
