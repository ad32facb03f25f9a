"""Short names of coders."""

from __future__ import annotations

import pytest

import expander_sae as xs
from expander_sae.coders.named import CODERS, coder_named, name_of


@pytest.mark.parametrize(
    ("name", "coder"),
    [
        ("topk:16", xs.TopK(16)),
        ("batch_topk:16", xs.BatchTopK(16)),
        ("mp:8", xs.MatchingPursuit(8)),
        ("omp:32", xs.OMP(32)),
        ("niht:4", xs.NIHT(4)),
        ("htp:4", xs.HTP(4)),
        ("ssmp:4", xs.SSMP(4)),
        ("voting:4", xs.VotingDecoder(4)),
        ("fista:0.25", xs.FISTA(0.25)),
        ("cd:0.25", xs.CoordinateDescent(0.25)),
        ("basis_pursuit", xs.BasisPursuit()),
    ],
)
def test_names_and_coders_are_the_same_thing(name, coder):
    assert coder_named(name) == coder
    assert name_of(coder) == name
    assert coder_named(name, signed=True).signed


def test_every_coder_of_the_package_has_a_name():
    concrete = {getattr(xs, name) for name in xs.coders.__all__} - {xs.Coder, xs.OneShotCoder}
    assert set(CODERS.values()) == concrete


def test_a_coder_from_elsewhere_is_called_by_its_class():
    class Mine(xs.TopK):
        """Not one of the package's."""

    assert name_of(Mine(3)) == "Mine"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("somp:3", "There is no coder 'somp:3'; the coders are topk:32, .*fista:0.1"),
        ("omp", "There is no coder 'omp'; the coders are"),
        ("basis_pursuit:3", "There is no coder 'basis_pursuit:3'"),
        ("omp:many", "'omp:many' needs a whole number behind the colon, as in omp:32"),
        ("fista:many", "'fista:many' needs a number behind the colon, as in fista:0.1"),
        ("omp:0", "k must be at least 1"),
        ("fista:2", "penalty must be above 0 and at most 1"),
    ],
)
def test_refusals(name, sentence):
    with pytest.raises(xs.ExpanderError, match=sentence):
        coder_named(name)
