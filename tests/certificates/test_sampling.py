"""Rates with their intervals, and the sets of features that are looked at."""

import numpy as np
import pytest
import torch

import expander_sae as xs
from expander_sae.certificates.progress import silent
from expander_sae.certificates.samples import Rate, codes_of_store, random_sets, sets_of_codes
from expander_sae.coders import Coder
from tests.activations.stores import WIDTH, harvest


class Everything(Coder):
    """Uses every feature of a dictionary with as many as coordinates, by the size of the activation."""

    def __call__(self, dictionary, x):
        return xs.Codes(x.clone(), torch.arange(dictionary.n).expand(len(x), -1), dictionary.n)


def test_intervals_are_those_of_clopper_and_pearson():
    assert Rate.of([False] * 10) == Rate(0, 10, 0.0, pytest.approx(1 - 0.025**0.1))
    assert Rate.of([True] * 2000) == Rate(2000, 2000, pytest.approx(0.025 ** (1 / 2000)), 1.0)
    middle = Rate.of([True] * 93 + [False] * 7)
    assert (middle.low, middle.high) == (pytest.approx(0.8611, abs=1e-4), pytest.approx(0.9714, abs=1e-4))
    assert middle.share == 0.93


def test_random_sets_are_distinct_features_of_those_given():
    features = np.arange(100, 130)
    sets = random_sets(features, 7, 500, seed=0)
    assert all(each.size == np.unique(each).size == 7 and (np.sort(each) == each).all() for each in sets)
    counts = np.bincount(np.concatenate(sets), minlength=130)
    assert (counts[:100] == 0).all()
    assert counts[100:].min() > 60  # of 117 on average
    assert [each.tolist() for each in random_sets(features, 7, 3, seed=0)] == [each.tolist() for each in sets[:3]]


def test_sets_of_codes_are_what_is_active():
    values = torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    indices = torch.tensor([[9, 0, 4], [0, 0, 0], [2, 7, 7]])
    assert [each.tolist() for each in sets_of_codes(xs.Codes(values, indices, 10))] == [[4, 9], [2, 7]]


def test_a_store_is_sampled_without_its_massive_tokens(tmp_path):
    store = xs.Store.open(harvest(tmp_path / "store"))
    sae = xs.SparseAutoencoder(xs.DenseDictionary(WIDTH, WIDTH, torch.eye(WIDTH)), Everything())
    told = []
    codes = codes_of_store(sae, store, len(store) + 5, 0, lambda *stage: told.append(stage))
    everything = store[0 : len(store)]
    assert everything.massive.any()
    assert torch.equal(codes.values, everything.activations[~everything.massive].float())
    assert told[-1] == ("encoding", len(store), len(store))
    few = codes_of_store(sae, store, 20, 1, silent)
    assert 10 < len(few.values) <= 20


def test_a_store_of_another_width_is_refused(tmp_path):
    store = xs.Store.open(harvest(tmp_path / "store"))
    sae = xs.SparseAutoencoder(xs.DenseDictionary(WIDTH + 1, 4), xs.TopK(k=1))
    with pytest.raises(xs.ExpanderError, match=f"width {WIDTH + 1}, but those of .* are {WIDTH} wide"):
        codes_of_store(sae, store, 5, 0, silent)
