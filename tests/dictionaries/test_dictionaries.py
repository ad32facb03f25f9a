"""Every dictionary is the same operator as its dense matrix."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import expander_sae as xs
from tests.uneven import uneven_support

KINDS = ["expander", "dense", "composed", "union"]


def make(kind, m=18, n=30, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    if kind == "dense":
        return xs.DenseDictionary(m, n, torch.randn(n, m, generator=generator, dtype=dtype))
    if kind == "composed":  # more atoms than coordinates, and mixtures of one to four of them
        mixtures = xs.ExpanderDictionary(uneven_support(m + 5, n, 4, seed))
        values = torch.randn(n, 4, generator=generator, dtype=dtype).masked_fill(mixtures.rows < 0, 0)
        mixtures = xs.ExpanderDictionary(mixtures.support, values)
        return xs.ComposedDictionary(make("dense", m, m + 5, seed, dtype), mixtures)
    if kind == "union":
        return xs.Union(
            [
                make("dense", m, 4, seed, dtype),
                make("expander", m, n - 10, seed, dtype),
                make("expander", m, 6, seed + 1, dtype),
            ]
        )
    support = xs.Support.make("uniform", m=m, n=n, d=min(m, 4), seed=seed)
    return xs.ExpanderDictionary(support, torch.randn(n, support.d, generator=generator, dtype=dtype))


def random_codes(dictionary, shape, k, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    indices = torch.rand(*shape, dictionary.n, generator=generator).argsort(dim=-1)[..., :k]
    values = torch.randn(*shape, k, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)
    return xs.Codes(values, indices, dictionary.n)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 25), n=st.integers(11, 40), k=st.integers(1, 11))
def test_adjoint(kind, seed, m, n, k):
    """<W a, x> = <a, W^T x>, with W in each of its forms."""
    dictionary = make(kind, m, n, seed)
    codes, x = random_codes(dictionary, (3,), k, seed), torch.randn(3, m, dtype=torch.float64)
    matrix = dictionary.to_dense()
    assert matrix.shape == (m, dictionary.n)
    torch.testing.assert_close(dictionary.synthesize(codes), codes.to_dense() @ matrix.T)
    torch.testing.assert_close(dictionary.correlate(x), x @ matrix)
    left = (dictionary.synthesize(codes) * x).sum()
    torch.testing.assert_close(left, (codes.to_dense() * dictionary.correlate(x)).sum())
    torch.testing.assert_close(left, (codes.values * dictionary.correlate_at(x, codes.indices)).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_gram_and_norms(kind):
    dictionary = make(kind)
    matrix = dictionary.to_dense()
    gram = matrix.T @ matrix
    indices = random_codes(dictionary, (2, 5), 7).indices
    expected = gram[indices[..., :, None], indices[..., None, :]]
    torch.testing.assert_close(dictionary.gram(indices), expected)
    torch.testing.assert_close(dictionary.gram_columns(indices), gram[indices])
    torch.testing.assert_close(dictionary.norms(), gram.diagonal().sqrt())


def test_gram_does_not_depend_on_its_chunks(monkeypatch):
    from expander_sae.kernels import columns

    dictionary = make("dense")
    indices = random_codes(dictionary, (9,), 7).indices
    whole = dictionary.gram(indices)
    monkeypatch.setattr(columns, "GRAM_ELEMENTS", 2 * 7 * 18)
    torch.testing.assert_close(dictionary.gram(indices), whole)
    assert dictionary.gram(indices[:0]).shape == (0, 7, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_normalise_columns(kind):
    dictionary = make(kind)
    direction = torch.nn.functional.normalize(dictionary.to_dense(), dim=0)
    dictionary.normalise_columns()
    torch.testing.assert_close(dictionary.to_dense(), direction)
    block = dictionary.blocks[1] if kind == "union" else dictionary
    block = dictionary.mixtures if kind == "composed" else block
    block.values.data[3] = 0
    dictionary.normalise_columns()
    assert dictionary.to_dense().isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signed", [False, True])
def test_select_is_topk_of_the_dense_product(kind, signed):
    dictionary = make(kind)
    x, bias = torch.randn(2, 6, 18, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    scores = x @ dictionary.to_dense() + bias
    best = (scores.abs() if signed else scores).topk(8).indices
    codes = dictionary.select(x, 8, bias, signed)
    assert torch.equal(codes.indices, best)
    torch.testing.assert_close(codes.values, scores.gather(-1, best))
    assert codes.l0.shape == (2, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dense_matrix(kind):
    """Through select and synthesize, against autograd on the same weights written out."""
    dictionary = make(kind)
    x = torch.randn(5, 18, dtype=torch.float64, requires_grad=True)
    parameters = list(dictionary.parameters())
    codes = dictionary.select(x, 6)
    ours = torch.autograd.grad((dictionary.synthesize(codes) - x).square().sum(), [x, *parameters])
    matrix = dictionary.to_dense()
    scores = x @ matrix
    kept = torch.zeros_like(scores).scatter(1, codes.indices, 1.0)
    expected = torch.autograd.grad(((scores * kept) @ matrix.T - x).square().sum(), [x, *parameters])
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_synthesize_onto_adds(kind):
    dictionary = make(kind)
    codes, base = random_codes(dictionary, (2, 3), 5), torch.randn(2, 3, 18, dtype=torch.float64)
    torch.testing.assert_close(dictionary.synthesize(codes, base), dictionary.synthesize(codes) + base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_any_leading_shape(kind, shape):
    dictionary = make(kind)
    x = torch.randn(*shape, 18, dtype=torch.float64)
    codes = dictionary.select(x, 4)
    assert codes.values.shape == (*shape, 4)
    assert dictionary.synthesize(codes).shape == (*shape, 18)
    assert dictionary.correlate(x).shape == (*shape, dictionary.n)
    assert dictionary.correlate_at(x, codes.indices).shape == (*shape, 4)
    assert xs.OMP(3)(dictionary, x).values.shape == (*shape, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_the_same_and_separate(kind, copied):
    dictionary = make(kind)
    xs.OMP(3)(dictionary, torch.randn(2, 18, dtype=torch.float64))
    other = copied(dictionary)
    assert torch.equal(other.to_dense(), dictionary.to_dense())
    next(other.parameters()).data += 1
    assert not torch.equal(other.to_dense(), dictionary.to_dense())


@pytest.mark.parametrize("kind", KINDS)
def test_moving_to_another_dtype(kind):
    dictionary = make(kind).to(torch.float32)
    assert dictionary.dtype == torch.float32
    for x_dtype in (torch.float32, torch.bfloat16, torch.float64):
        codes = dictionary.select(torch.randn(3, 18).to(x_dtype), 4)
        assert codes.values.dtype == torch.promote_types(x_dtype, torch.float32)
    half = make(kind).to(torch.float16)
    assert half.select(torch.randn(3, 18, dtype=torch.float16), 4).values.dtype == torch.float16


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), m=st.integers(4, 20), n=st.integers(5, 40), k=st.integers(1, 5))
def test_a_pursuit_among_mixtures_is_that_of_the_dense_product(orthogonal, signed, seed, m, n, k):
    """Correlations kept up to date over the atoms give the codes that the matrix written out gives."""
    composed = make("composed", m, n, seed)
    dense = xs.DenseDictionary(m, n, composed.to_dense().T)
    x = torch.randn(7, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    coder = (xs.OMP if orthogonal else xs.MatchingPursuit)(k, signed=signed)
    ours, theirs = coder(composed, x), coder(dense, x)
    torch.testing.assert_close(composed.synthesize(ours), dense.synthesize(theirs))


def test_a_pursuit_sees_atoms_that_changed():
    composed, x = make("composed"), torch.randn(5, 18, dtype=torch.float64)
    xs.OMP(3)(composed, x)
    composed.atoms.values.data.copy_(torch.randn(23, 18, dtype=torch.float64))
    again = xs.DenseDictionary(18, 30, composed.to_dense().T)
    torch.testing.assert_close(composed.synthesize(xs.OMP(3)(composed, x)), again.synthesize(xs.OMP(3)(again, x)))


def test_mixtures_of_coordinates_are_an_expander_dictionary():
    expander, x = make("expander"), torch.randn(5, 18, dtype=torch.float64)
    identity = xs.DenseDictionary(18, 18, torch.eye(18, dtype=torch.float64))
    composed = xs.ComposedDictionary(identity, expander)
    assert torch.equal(composed.to_dense(), expander.to_dense())
    assert torch.equal(composed.select(x, 4).indices, expander.select(x, 4).indices)


def test_rows_move_but_are_not_state():
    dictionary = make("expander")
    assert set(dictionary.state_dict()) == {"values"}
    assert dictionary.to(torch.float16).rows.dtype == torch.int32


def test_new_dictionaries_have_unit_columns():
    support = xs.Support.make("uniform", m=50, n=70, d=6, seed=0)
    expander = xs.ExpanderDictionary(support, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(expander.norms(), torch.ones(70))
    assert (expander.values > 0).any()
    assert (expander.values < 0).any()
    torch.testing.assert_close(xs.DenseDictionary(50, 70).norms(), torch.ones(70))
    again = xs.ExpanderDictionary(support, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.values, expander.values)


def test_learned_values():
    assert make("expander").learned_values == 30 * 4
    assert make("dense").learned_values == 30 * 18
    composed = make("composed")
    assert composed.learned_values == 23 * 18 + int((composed.mixtures.rows >= 0).sum())
    assert make("union").learned_values == 4 * 18 + 20 * 4 + 6 * 4


def test_union_is_one_index_space():
    union = make("union")
    assert union.offsets == [0, 4, 24, 30]
    one = xs.Codes(torch.ones(1, 1, dtype=torch.float64), torch.tensor([[4]]), 30)
    torch.testing.assert_close(union.synthesize(one)[0], union.blocks[1].to_dense()[:, 0])
    nested = xs.Union([union, make("dense", n=3)])
    x = torch.randn(4, 18, dtype=torch.float64)
    torch.testing.assert_close(nested.correlate(x), x @ nested.to_dense())


@pytest.mark.parametrize("coder", [xs.TopK(4), xs.Candidates(4), xs.OMP(4)])
def test_mixtures_may_lie_in_a_union(coder):
    union = xs.Union([make("composed"), make("dense", n=5), make("expander", n=7)])
    dense, x = xs.DenseDictionary(18, union.n, union.to_dense().T), torch.randn(6, 18, dtype=torch.float64)
    torch.testing.assert_close(union.synthesize(coder(union, x)), dense.synthesize(coder(dense, x)))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: xs.Union([]), "at least one dictionary"),
        (lambda: xs.Union([make("dense"), make("dense", m=17)]), "one width, not"),
        (lambda: xs.ComposedDictionary(make("dense"), make("expander")), "Mixtures of 18 atoms need 18 atoms, not 30"),
        (lambda: make("composed").select(torch.zeros(2, 17), 3), "must be [..., 18]"),
        (lambda: xs.OMP(3)(make("composed"), torch.full((2, 18), torch.nan)), "x must be finite"),
        (lambda: xs.DenseDictionary(0, 3), "at least 1"),
        (lambda: xs.DenseDictionary(4, 3, torch.zeros(4, 3)), "one row per column of W"),
        (
            lambda: xs.ExpanderDictionary(xs.Support.make("uniform", m=4, n=3, d=2), torch.zeros(3, 3)),
            "for this support",
        ),
        (lambda: make("dense").select(torch.zeros(2, 17), 3), "must be [..., 18]"),
        (lambda: make("expander").correlate(torch.zeros(2, 17)), "must be [..., 18]"),
        (lambda: make("expander").correlate(torch.zeros(2, 18, dtype=torch.int64)), "must be floating-point"),
        (lambda: xs.OMP(3)(make("dense"), torch.full((2, 18), torch.nan)), "x must be finite"),
        (lambda: make("dense").select(torch.zeros(2, 18), 31), "between 1 and the number of features, 30"),
        (lambda: make("union").select(torch.zeros(2, 18), 0), "between 1 and the number of features, 30"),
        (lambda: make("dense").select(torch.full((2, 18), torch.inf), 3), "x must be finite"),
        (lambda: xs.Codes(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64), 9), "of one shape"),
    ],
)
def test_impossible_requests_get_a_sentence(build, sentence):
    with pytest.raises(xs.ExpanderError) as refusal:
        build()
    assert sentence in str(refusal.value)
