"""Bad sets: witnesses are what they claim, and peeling finds exactly the largest stopping set."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.supports import NO_ROW, Support, SupportError, adversarial_expansion, max_overlap, peel


@st.composite
def small_supports(draw):
    m = draw(st.integers(2, 9))
    d = draw(st.integers(1, min(m, 3)))
    least = draw(st.sampled_from([1, d]))
    feature = st.lists(st.integers(0, m - 1), min_size=least, max_size=d, unique=True)
    features = draw(st.lists(feature, min_size=1, max_size=8))
    return Support.from_rows([rows + [NO_ROW] * (d - len(rows)) for rows in features], m)


def touched_by(support, features):
    """The coordinates of these features, as often as there is a feature."""
    rows = support.columns(features).flatten().long()
    return rows[rows >= 0]


def expansion_loss(support, features):
    rows = touched_by(support, features)
    return 1 - rows.unique().numel() / len(rows)


def subsets(features):
    for size in range(1, len(features) + 1):
        yield from combinations(features, size)


def is_stopping(support, features):
    degrees = torch.bincount(touched_by(support, list(features)), minlength=support.m)
    return bool((degrees != 1).all())


@settings(deadline=None, max_examples=60)
@given(small_supports(), st.data())
def test_peeling_leaves_the_largest_stopping_set(support, data):
    given_features = data.draw(st.lists(st.integers(0, support.n - 1), min_size=1, max_size=8))
    stopping = [set(subset) for subset in subsets(sorted(set(given_features))) if is_stopping(support, subset)]
    assert peel(support, given_features).tolist() == sorted(set().union(*stopping))


@settings(deadline=None, max_examples=40)
@given(small_supports(), st.integers(0, 2**32))
def test_what_peels_to_nothing_is_injective_and_what_does_not_can_be_singular(support, seed):
    """Theorem 2: random weights on a peelable set have full rank; a stopping set has weights that sum to zero."""
    features = list(range(support.n))
    generator = torch.Generator().manual_seed(seed)
    dense = torch.zeros(support.m + 1, support.n, dtype=torch.float64)
    weights = torch.rand(support.n, support.d, generator=generator, dtype=torch.float64) + 0.5
    dense = dense.scatter(0, support.rows.long().T % (support.m + 1), weights.T)[:-1]
    remaining = peel(support, features)
    if remaining.numel() == 0:
        assert torch.linalg.matrix_rank(dense) == support.n
        return
    # In each touched row set the first weight to minus the sum of the others: non-zero, because they are positive.
    stopping = dense[:, remaining]
    for row in stopping:
        touched = torch.nonzero(row).flatten()
        if touched.numel():
            assert touched.numel() >= 2
            row[touched[0]] = -row[touched[1:]].sum()
    assert torch.allclose(stopping.sum(dim=1), torch.zeros(support.m, dtype=torch.float64), atol=1e-12)


def test_peel_of_nothing_is_nothing():
    assert peel(Support.make("uniform", m=9, n=9, d=2), []).tolist() == []


@settings(deadline=None, max_examples=40)
@given(small_supports(), st.integers(0, 99))
def test_witnesses_attain_epsilon_which_never_exceeds_the_truth(support, seed):
    largest = support.n
    found = adversarial_expansion(support, largest, restarts=3, seed=seed)
    exact = 0.0
    for size in range(1, largest + 1):
        exact = max(exact, max(expansion_loss(support, list(s)) for s in combinations(range(support.n), size)))
        witness = found.witness(size).tolist()
        assert witness == sorted(set(witness))
        assert 1 <= len(witness) <= size
        assert expansion_loss(support, witness) == pytest.approx(found.epsilon[size - 1].item(), abs=1e-12)
        assert found.epsilon[size - 1] <= exact + 1e-12
    assert found.epsilon[0] == 0
    assert (found.epsilon.diff() >= 0).all()


def test_the_search_finds_what_is_planted():
    support = Support.make("shared", m=50, n=40, d=5)
    found = adversarial_expansion(support, 10, restarts=1)
    assert found.epsilon.tolist() == pytest.approx([1 - 1 / t for t in range(1, 11)])
    banded = Support.make("banded", m=60, n=240, d=5)
    copies = adversarial_expansion(banded, 8, restarts=5).epsilon
    assert copies[3] == 15 / 20
    assert copies[7] == 34 / 40


def test_the_search_finds_the_worst_pair_of_a_uniform_support():
    support = Support.make("uniform", m=40, n=60, d=6)
    pairs = adversarial_expansion(support, 2, restarts=400)
    assert pairs.epsilon[1] == max_overlap(support) / 12


def test_the_search_is_deterministic_in_its_seed():
    support = Support.make("uniform", m=64, n=256, d=5)
    first, again, other = (adversarial_expansion(support, 20, restarts=2, seed=seed) for seed in (1, 1, 2))
    assert first.witness(20).tolist() == again.witness(20).tolist()
    assert first.witness(20).tolist() != other.witness(20).tolist()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"largest": 0}, "largest must be between 1 and n = 60"),
        ({"largest": 61}, "largest must be between 1 and n = 60"),
        ({"largest": 3, "restarts": 0}, "restarts must be at least 1"),
        ({"largest": 3, "seed": -1}, "seed must be between 0"),
    ],
)
def test_impossible_searches_are_refused(arguments, sentence):
    support = Support.make("uniform", m=40, n=60, d=6)
    with pytest.raises(SupportError, match=sentence):
        adversarial_expansion(support, **arguments)
    with pytest.raises(SupportError, match="sets of 1 to 5 features, not 6"):
        adversarial_expansion(support, 5).witness(6)
