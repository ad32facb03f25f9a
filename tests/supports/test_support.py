"""The Support itself: what it gives back, what it refuses, how it travels."""

import copy
import dataclasses
import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.errors import ExpanderError
from expander_sae.supports import Support, SupportError, constructions

ROWS = [[4, 0, 2], [1, 2, 3], [0, 2, 4]]


@pytest.fixture
def uniform():
    return Support.make("uniform", m=40, n=90, d=5, seed=7)


@pytest.fixture
def stored():
    return Support.from_rows(ROWS, m=5)


def test_attributes_and_recipe(uniform):
    assert (uniform.m, uniform.n, uniform.d, uniform.seed, uniform.construction) == (40, 90, 5, 7, "uniform")
    assert uniform.parameters == {}
    assert not uniform.is_stored
    recipe = {"construction": "uniform", "m": 40, "n": 90, "d": 5, "seed": 7, "parameters": {}}
    assert uniform.recipe == recipe
    assert json.loads(json.dumps(uniform.recipe)) == recipe


def test_parameters_are_filled_in_and_survive_json():
    support = Support.make("lines", m=64, n=50, d=4, order="feistel")
    assert support.parameters == {"strength": 2, "order": "feistel"}
    assert Support.from_recipe(json.loads(json.dumps(support.recipe))) == support


def test_numpy_sizes_are_as_good_as_ints(uniform):
    sizes = {"m": np.int64(40), "n": np.int32(90), "d": np.uint8(5), "seed": np.uint64(7)}
    same = Support.make("uniform", **sizes)
    assert same == uniform
    json.dumps(same.recipe)


def test_repr_is_short_and_says_everything(uniform, stored):
    assert repr(uniform) == "Support('uniform', m=40, n=90, d=5, seed=7)"
    assert repr(stored) == "Support('learned', m=5, n=3, d=3)"
    assert repr(Support.make("block", m=8, n=4, d=2, blocks=2)).endswith("seed=0, blocks=2)")


def test_it_is_immutable(uniform):
    for name in ("m", "n", "seed", "construction", "rows", "sha256"):
        with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
            setattr(uniform, name, 1)
    uniform.parameters["strength"] = 3
    assert uniform.parameters == {}


def test_rows_are_made_once(uniform):
    assert uniform.rows is uniform.rows
    assert uniform.row_lists is uniform.row_lists


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize(
    "features",
    [3, [3], [], [[1, 2], [89, 0]], np.array([5, 5]), torch.tensor([[7], [8]]), torch.tensor(4, dtype=torch.int32)],
)
def test_columns_take_any_integers(uniform, features, is_built):
    expected = Support.make("uniform", m=40, n=90, d=5, seed=7).rows[torch.as_tensor(features, dtype=torch.int64)]
    if is_built:
        _ = uniform.rows
    columns = uniform.columns(features)
    assert columns.dtype == torch.int32
    assert columns.shape == (*np.shape(features), 5)
    assert torch.equal(columns, expected)


@pytest.mark.parametrize("features", [[0.5], [True], torch.tensor([1.0]), ["a"]])
def test_columns_refuse_what_is_not_an_integer(uniform, features):
    with pytest.raises(SupportError, match="features must be integers"):
        uniform.columns(features)


@pytest.mark.parametrize("features", [[-1], [90], torch.tensor([0, 1000])])
def test_columns_refuse_features_that_do_not_exist(uniform, stored, features):
    for support in (uniform, stored):
        with pytest.raises(SupportError, match="Features are numbered 0 to"):
            support.columns(features)


def test_sha256_is_of_little_endian_rows(stored):
    expected = np.array([[0, 2, 4], [1, 2, 3], [0, 2, 4]])
    assert stored.sha256 == hashlib.sha256(expected.astype("<u2").tobytes()).hexdigest()
    wide = Support.from_rows(ROWS, m=65_537)
    assert wide.sha256 == hashlib.sha256(expected.astype("<i4").tobytes()).hexdigest()
    assert Support.from_rows(ROWS, m=65_536).sha256 == stored.sha256


def test_sha256_of_many_chunks_is_the_hash_of_the_whole():
    support = Support.make("uniform", m=50, n=300_000, d=4)
    assert support.sha256 == hashlib.sha256(support.rows.numpy().astype("<u2").tobytes()).hexdigest()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 30), st.data())
def test_row_lists_are_the_transpose(m, n, data):
    d = data.draw(st.integers(1, m))
    support = Support.make("uniform", m=m, n=n, d=d, seed=data.draw(st.integers(0, 99)))
    lists = support.row_lists
    assert (lists.starts.dtype, lists.features.dtype, lists.slots.dtype) == (torch.int64, torch.int32, torch.int32)
    assert lists.features.shape == lists.slots.shape == (n * d,)
    assert (lists.starts[0], lists.starts[-1], lists.starts.numel()) == (0, n * d, m + 1)
    for coordinate in range(m):
        part = slice(lists.starts[coordinate], lists.starts[coordinate + 1])
        features, slots = torch.nonzero(support.rows == coordinate, as_tuple=True)
        assert lists.features[part].tolist() == features.tolist()
        assert lists.slots[part].tolist() == slots.tolist()


def test_stored_rows_are_sorted_copied_and_cannot_be_rebuilt(stored):
    assert stored.is_stored
    assert stored.rows.tolist() == [[0, 2, 4], [1, 2, 3], [0, 2, 4]]
    given_rows = torch.tensor(ROWS, dtype=torch.int16)
    support = Support.from_rows(given_rows, m=5, construction="chosen")
    given_rows[:] = 0
    assert support == stored
    assert support.construction == "chosen"
    with pytest.raises(SupportError, match=r"'chosen' is not one of uniform, .*Support.from_rows"):
        Support.from_recipe(support.recipe)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[0, 0, 1]], "Feature 0 touches a coordinate twice"),
        ([[0, 1, 2], [3, 4, 3]], "Feature 1 touches a coordinate twice"),
        ([[0, 1, 5]], "rows must lie between 0 and m - 1 = 4, not 0 to 5"),
        ([[-2, 1, 2]], "rows must lie between 0 and m - 1 = 4, not -2 to 2"),
        ([[0, 1], [-1, -1]], "Feature 1 touches no coordinate"),
        ([0, 1, 2], r"shape \[n, d\], not \[3\]"),
        ([[0.0, 1.0]], "rows must be integers, not float64"),
        (torch.zeros(2, 1, dtype=torch.bool), "rows must be integers, not bool"),
        (np.empty((0, 3), dtype=np.int64), "n must be between 1 and"),
        (np.empty((3, 0), dtype=np.int64), "d must be between 1 and"),
        ([[0, 1, 2, 3, 4, 5]], "cannot touch d = 6 of m = 5"),
    ],
)
def test_bad_stored_rows_are_refused(rows, sentence):
    with pytest.raises(SupportError, match=sentence):
        Support.from_rows(rows, m=5)


def test_stored_rows_cannot_bear_the_name_of_a_construction():
    with pytest.raises(SupportError, match="cannot be called 'uniform'"):
        Support.from_rows(ROWS, m=5, construction="uniform")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"d": 41}, "cannot touch d = 41 of m = 40"),
        ({"d": 0}, "d must be between 1"),
        ({"n": 0}, "n must be between 1"),
        ({"m": -3}, "m must be between 1"),
        ({"n": 2**31}, "n must be between 1"),
        ({"d": 5.0}, "d must be an integer, not 5.0"),
        ({"m": True}, "m must be an integer, not True"),
        ({"n": "90"}, "n must be an integer, not '90'"),
        ({"seed": -1}, "seed must be between 0 and"),
        ({"seed": 2**64}, "seed must be between 0 and"),
        ({"seed": 0.5}, "seed must be an integer"),
    ],
)
def test_impossible_sizes_are_refused_by_every_construction(change, sentence):
    for name in constructions():
        with pytest.raises(SupportError, match=sentence):
            Support.make(name, **({"m": 40, "n": 90, "d": 5, "seed": 0} | change))


def test_an_unknown_construction_is_answered_with_the_names():
    with pytest.raises(SupportError, match="'unifrom' is not one of uniform, partitioned, balanced, lines, greedy"):
        Support.make("unifrom", m=4, n=4, d=2)


def test_bad_recipes_are_refused(uniform):
    recipe = uniform.recipe
    for bad in ({**recipe, "extra": 1}, {key: recipe[key] for key in recipe if key != "seed"}):
        with pytest.raises(SupportError, match="A recipe has the keys construction, m, n, d, seed, parameters"):
            Support.from_recipe(bad)
    with pytest.raises(SupportError, match="parameters must be a mapping"):
        Support.from_recipe({**recipe, "parameters": None})


def test_equality_is_of_sizes_and_rows(uniform, stored):
    copied = Support.from_rows(uniform.rows, m=40)
    assert copied == uniform
    assert hash(copied) == hash(uniform)
    assert copied.sha256 == uniform.sha256
    assert Support.make("uniform", m=40, n=90, d=5, seed=8) != uniform
    assert Support.make("uniform", m=41, n=90, d=5, seed=7) != uniform
    assert stored != uniform
    assert uniform != "uniform"


def test_it_travels(uniform, stored):
    for support in (uniform, stored):
        again = pickle.loads(pickle.dumps(support))
        assert again == support
        assert again.recipe == support.recipe
        assert again.is_stored == support.is_stored
        assert copy.deepcopy(support) == support
        assert copy.copy(support) == support
    _ = uniform.rows
    assert len(pickle.dumps(uniform)) < 400


def test_the_table_describes_itself():
    for name, construction in constructions().items():
        assert construction.name == name
        assert construction.summary
        assert "\n" not in construction.summary
        assert (construction.rows_of is None) != (construction.all_rows is None)
        assert all(parameter.summary for parameter in construction.parameters.values())
    with pytest.raises(TypeError):
        constructions()["mine"] = None
    assert issubclass(SupportError, ExpanderError)


def test_features_may_touch_fewer_coordinates_than_others():
    support = Support.from_rows([[3, -1, 0], [-1, 2, -1], [4, 1, 0]], m=5)
    assert support.rows.tolist() == [[0, 3, -1], [2, -1, -1], [0, 1, 4]]
    assert support.degrees.tolist() == [2, 1, 3]
    assert (support.d, support.entries, support.is_even) == (3, 6, False)
    assert support.column(1).tolist() == [2]
    assert torch.diff(support.row_lists.starts).tolist() == [2, 1, 1, 1, 1]
    assert support.row_lists.features.tolist() == [0, 2, 2, 1, 0, 2]
    assert support == Support.from_rows(support.rows, m=5)
    assert support != Support.from_rows([[0, 3, 2], [2, 1, 0], [0, 1, 4]], m=5)
    assert "entries=6" in repr(support)
