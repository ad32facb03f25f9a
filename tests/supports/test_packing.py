"""Packed rows come back as they were, take few bits, and are refused when they are not what packing makes."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.supports import Support, SupportError
from expander_sae.supports.packing import PackedRows, bits_needed, pack_rows, unpack_rows
from tests.uneven import shortened

EXAMPLES = settings(deadline=None, max_examples=150)


def some_rows(m, n, d, seed, preference=0.0):
    """Random rows; with a preference, low coordinates are much more likely than high ones."""
    generator = np.random.default_rng(seed)
    weights = generator.random((n, m)) * np.exp(preference * np.arange(m) / m)
    return np.sort(weights.argsort(axis=1)[:, :d], axis=1).astype(np.int32)


def there_and_back(rows, m):
    packed = pack_rows(rows, m)
    found = unpack_rows(packed, m, *rows.shape)
    assert found.dtype == np.int32
    assert np.array_equal(found, rows)
    return packed


@EXAMPLES
@given(data=st.data())
def test_rows_come_back(data):
    m = data.draw(st.integers(1, 80) | st.sampled_from([255, 256, 257]))
    d = data.draw(st.integers(1, m) | st.just(m) | st.just(1))
    n = data.draw(st.integers(1, 60))
    rows = some_rows(m, n, d, data.draw(st.integers(0, 1000)), data.draw(st.sampled_from([0.0, 5.0, 60.0])))
    there_and_back(rows, m)
    there_and_back(shortened(torch.from_numpy(rows), n).numpy(), m)


@EXAMPLES
@given(data=st.data())
def test_rows_come_back_on_the_widest_supports(data):
    m = data.draw(st.integers(2**16, 2**31 - 1))
    columns = st.lists(st.integers(0, m - 1), min_size=3, max_size=3, unique=True).map(sorted)
    rows = np.array(data.draw(st.lists(columns, min_size=1, max_size=5)), np.int32)
    there_and_back(rows, m)


@pytest.mark.parametrize("m", [1, 2, 8, 9, 300])
def test_columns_that_touch_everything_take_one_bit_per_row(m):
    rows = np.tile(np.arange(m, dtype=np.int32), (5, 1))
    packed = there_and_back(rows, m)
    assert packed.width == 0
    assert packed.nbytes == math.ceil(5 * m / 8)


@pytest.mark.parametrize("sizes", [(2048, 16384, 7), (768, 8192, 16), (2048, 8192, 32)])
def test_uniform_rows_are_near_the_bound(sizes):
    m, n, d = sizes
    packed = there_and_back(Support.make("uniform", m=m, n=n, d=d).rows.numpy(), m)
    bound = bits_needed(m, n, d) / 8
    assert bound < packed.nbytes < 1.06 * bound
    assert len(packed.order) == 0


def test_rows_that_prefer_coordinates_take_less_than_the_bound():
    m, n, d = 300, 2000, 7
    rows = some_rows(m, n, d, seed=1, preference=8.0)
    shuffled = np.sort(np.random.default_rng(2).permutation(m)[rows], axis=1).astype(np.int32)
    packed = there_and_back(shuffled, m)
    assert len(packed.order) == 9
    assert packed.nbytes < 0.85 * bits_needed(m, n, d) / 8


@given(m=st.integers(1, 60), n=st.integers(1, 10), data=st.data())
def test_the_bound_is_the_number_of_supports(m, n, data):
    d = data.draw(st.integers(1, m))
    assert bits_needed(m, n, d) == pytest.approx(n * math.log2(math.comb(m, d)), abs=1e-9 * n)


def test_the_bits_never_change():
    """Files hold them."""
    rows = np.array([[0, 1, 9], [3, 9, 10], [4, 5, 12]], np.int32)
    packed = pack_rows(rows, 13)
    assert packed.width == 1
    assert packed.remainders.tolist() == [[0b00111000, 0]]
    assert packed.quotients.tolist() == [0b11000101, 0b00110011, 0b00010000]
    assert packed.order.shape == (0, 2)
    frequent = np.array([[7, 12]] * 40 + [[0, 9]], np.int32)
    packed = pack_rows(frequent, 13)
    assert packed.width == 0
    assert packed.order.shape == (4, 2)
    assert packed.order[:, 0].tolist() == [0b10011010, 0b10000110, 0b11000001, 0b01010000]


@pytest.mark.parametrize(
    ("rows", "m"),
    [([[0, 5]], 5), ([[-1, 2]], 5), ([[2, 2]], 5), ([[3, 1]], 5), (np.zeros((0, 3), np.int32), 5), ([1, 2], 5)],
)
def test_rows_that_no_support_has_are_not_packed(rows, m):
    with pytest.raises(SupportError, match=r"^Only rows .*\.$"):
        pack_rows(np.asarray(rows, np.int32), m)


ROWS = np.sort((some_rows(40, 60, 3, seed=3, preference=8.0) * 7) % 40, axis=1).astype(np.int32)
PACKED = pack_rows(ROWS, 40)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"quotients": PACKED.quotients[:-1]}, "must be 180 numbers, not "),
        ({"quotients": np.append(PACKED.quotients, np.uint8(0))}, "must end with the byte of the last one"),
        ({"quotients": np.append(PACKED.quotients, np.uint8(1))}, "must be 180 numbers, not 181"),
        ({"quotients": PACKED.quotients[None]}, "must be 180 numbers"),
        ({"quotients": np.array([], np.uint8)}, "must be 180 numbers, not 0"),
        ({"quotients": np.append(np.zeros(50, np.uint8), PACKED.quotients)}, "gap that is too wide for 40"),
        ({"remainders": PACKED.remainders[:, :-1]}, r"remainders .* must be at most \[31, 23\]"),
        ({"remainders": PACKED.remainders[0]}, "remainders .* must be at most"),
        ({"remainders": np.zeros((32, 23), np.uint8)}, "remainders .* must be at most"),
        ({"remainders": PACKED.remainders | 1}, "must be 180 numbers, with zeros"),
        ({"remainders": np.full((5, 23), 240, np.uint8)}, "Packed rows .*40"),
        ({"order": PACKED.order[:, :-1]}, r"order .* must be at most \[31, 5\]"),
        ({"order": np.zeros_like(PACKED.order)}, "must name each of the 40 coordinates once"),
        ({"order": np.full_like(PACKED.order, 255)}, "must name each of the 40 coordinates once"),
    ],
)
def test_malformed_streams_are_refused(changes, sentence):
    with pytest.raises(SupportError, match=sentence) as error:
        unpack_rows(dataclasses.replace(PACKED, **changes), 40, 60, 3)
    assert str(error.value).endswith(".")


def test_more_rows_to_a_column_than_there_are_coordinates_are_refused_before_room_is_made_for_them():
    with pytest.raises(SupportError, match="Packed rows of 40 coordinates cannot be 2301242154 to a column"):
        unpack_rows(PACKED, 40, 60, 2_301_242_154)


def test_rows_beyond_the_width_are_refused():
    packed = pack_rows(np.array([[0, 1, 2], [5, 8, 9]], np.int32), 10)
    with pytest.raises(SupportError, match="must lie between 0 and 8, but one is 9"):
        unpack_rows(packed, 9, 2, 3)


@EXAMPLES
@given(data=st.data())
def test_any_flipped_bit_gives_rows_or_a_refusal(data):
    part = data.draw(st.sampled_from(["remainders", "quotients", "order"]))
    changed = getattr(PACKED, part).copy()
    position = data.draw(st.integers(0, changed.size - 1))
    changed.reshape(-1)[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        rows = unpack_rows(dataclasses.replace(PACKED, **{part: changed}), 40, 60, 3)
    except SupportError:
        return
    assert not np.array_equal(rows, ROWS)
    assert Support.from_rows(rows, 40).d == 3


def test_what_packed_rows_take():
    packed = PackedRows(np.zeros((2, 5), np.uint8), np.zeros(7, np.uint8), np.zeros((0, 3), np.uint8))
    assert (packed.width, packed.nbytes) == (2, 17)
