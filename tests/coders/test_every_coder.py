"""What every coder promises on every dictionary."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from expander_sae.coders import (
    FISTA,
    HTP,
    NIHT,
    OMP,
    SSMP,
    BasisPursuit,
    BatchTopK,
    Candidates,
    Coder,
    CoordinateDescent,
    JumpReLU,
    MatchingPursuit,
    TopK,
    VotingDecoder,
)
from expander_sae.errors import ExpanderError
from tests.coders.problems import FAMILIES, gaussian, make_dictionary, plant, residual

K = 3
TOKENS = 6


@dataclass(frozen=True)
class Case:
    """A coder, and what sets it apart from the others."""

    name: str
    make: Callable[[bool, torch.dtype], Coder]
    norm: int | None = 2
    """The norm in which it never leaves more than there was; None for one-shot coders, which promise nothing."""
    exact: bool = False
    """It refuses what it cannot reproduce."""
    approximate: bool = False
    """Its codes are only as good as its gap."""
    takes_k: bool = True


def gap(dtype: torch.dtype) -> float:
    return 1e-7 if dtype == torch.float64 else 1e-5


CASES = [
    Case("topk", lambda signed, _: TopK(K, signed=signed), norm=None),
    Case("batch-topk", lambda signed, _: BatchTopK(K, signed=signed, threshold=0.5), norm=None),
    Case("jumprelu", lambda signed, _: JumpReLU(signed=signed), norm=None, takes_k=False),
    Case("candidates", lambda signed, _: Candidates(K, 6, signed=signed)),
    Case("matching-pursuit", lambda signed, _: MatchingPursuit(K, signed=signed)),
    Case("omp", lambda signed, _: OMP(K, signed=signed)),
    Case("niht", lambda signed, _: NIHT(K, signed=signed)),
    Case("htp", lambda signed, _: HTP(K, signed=signed)),
    Case("fista", lambda s, dtype: FISTA(0.1, gap=gap(dtype), signed=s), approximate=True, takes_k=False),
    Case("descent", lambda s, dtype: CoordinateDescent(0.1, gap=gap(dtype), signed=s), approximate=True, takes_k=False),
    Case("fista-refit", lambda signed, _: FISTA(0.1, k=K, refit=True, signed=signed)),
    Case("descent-refit", lambda signed, _: CoordinateDescent(0.1, k=K, refit=True, signed=signed)),
    Case("ssmp", lambda signed, _: SSMP(K, signed=signed), norm=1),
    Case("voting", lambda signed, _: VotingDecoder(K, signed=signed)),
    Case("basis-pursuit", lambda signed, _: BasisPursuit(signed=signed), exact=True, takes_k=False),
]
every_coder = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_dictionary = pytest.mark.parametrize("family", FAMILIES)


def problem(case: Case, family: str, dtype: torch.dtype, signed: bool):
    """A dictionary and tokens: planted ones, with two that nothing explains where the coder takes them."""
    dictionary = make_dictionary(family, dtype=dtype)
    x = plant(dictionary, TOKENS, K, signed=signed).x
    if not case.exact:
        x = torch.cat([x[:-2], gaussian(2, dictionary.m, dtype=dtype)])
    return dictionary, x


@every_coder
@every_dictionary
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])
def test_codes_are_well_formed_and_explain_something(case, family, dtype, signed):
    dictionary, x = problem(case, family, dtype, signed)
    codes = case.make(signed, dtype)(dictionary, x)
    assert codes.values.shape[:-1] == (TOKENS,)
    assert codes.n == dictionary.n
    assert codes.values.dtype == dtype
    assert codes.indices.dtype == torch.int64
    assert codes.values.isfinite().all()
    assert ((codes.indices >= 0) & (codes.indices < dictionary.n)).all()
    assert (codes.l0 > 0).any() or case.name == "voting"
    if not signed:
        assert (codes.values >= 0).all()
    if case.takes_k and case.name != "batch-topk":
        assert codes.values.shape[-1] == K
    for token in range(TOKENS):
        used = codes.indices[token][codes.active[token]]
        assert len(used.unique()) == len(used)
    if case.norm is not None:
        left, size = (torch.linalg.vector_norm(r, ord=case.norm, dim=-1) for r in (residual(dictionary, codes, x), x))
        assert (left <= size * (1 + 1e-5)).all()


@every_coder
@every_dictionary
@pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])
def test_a_batch_is_its_tokens(case, family, signed):
    dictionary, x = problem(case, family, torch.float64, signed)
    coder = case.make(signed, torch.float64)
    together = coder(dictionary, x).to_dense()
    alone = torch.stack([coder(dictionary, token).to_dense() for token in x])
    torch.testing.assert_close(together, alone, atol=1e-2 if case.approximate else 1e-8, rtol=0)


@every_coder
@every_dictionary
def test_any_batch_shape(case, family):
    dictionary, x = problem(case, family, torch.float64, False)
    coder = case.make(False, torch.float64)
    codes = coder(dictionary, x)
    grid = coder(dictionary, x.reshape(2, 1, 3, -1))
    assert grid.values.shape == (2, 1, 3, codes.values.shape[-1])
    torch.testing.assert_close(grid.to_dense().reshape(TOKENS, -1), codes.to_dense())
    assert coder(dictionary, x[0]).values.ndim == 1
    empty = coder(dictionary, x[:0])
    assert empty.values.shape[0] == 0
    assert empty.to_dense().shape == (0, dictionary.n)


@every_coder
@every_dictionary
def test_no_gradient_flows_through_a_search(case, family):
    dictionary, x = problem(case, family, torch.float64, False)
    codes = case.make(False, torch.float64)(dictionary, x.requires_grad_())
    assert codes.values.requires_grad == (case.norm is None)


@every_coder
def test_zero_token_has_zero_codes(case):
    dictionary = make_dictionary("expander")
    codes = case.make(True, torch.float64)(dictionary, torch.zeros(2, dictionary.m, dtype=torch.float64))
    assert not codes.active.any()


@pytest.mark.parametrize("case", [case for case in CASES if not case.exact], ids=lambda case: case.name)
def test_half_precision(case):
    dictionary, x = problem(case, "expander", torch.bfloat16, False)
    codes = case.make(False, torch.float32)(dictionary, x)
    assert codes.values.dtype == torch.bfloat16
    assert codes.values.isfinite().all()


@pytest.mark.parametrize(
    "coder", [NIHT(2), HTP(2), FISTA(0.1), CoordinateDescent(0.1), SSMP(2), VotingDecoder(2), BasisPursuit()], ids=repr
)
def test_integers_are_refused(coder):
    with pytest.raises(ExpanderError, match="floating-point"):
        coder(make_dictionary("expander"), torch.ones(2, 24, dtype=torch.int64))


@every_coder
@every_dictionary
def test_bad_activations_are_refused(case, family):
    dictionary, x = problem(case, family, torch.float64, False)
    coder = case.make(False, torch.float64)
    with pytest.raises(ExpanderError, match=r"must be \[\.\.\., 24\]"):
        coder(dictionary, x[:, 1:])
    with pytest.raises(ExpanderError, match="finite"):
        coder(dictionary, x.index_fill(1, torch.tensor([3]), torch.nan))


@pytest.mark.parametrize(
    "coder",
    [TopK(41), BatchTopK(41), Candidates(41), NIHT(41), HTP(41), FISTA(0.1, k=41), SSMP(41), VotingDecoder(41)],
    ids=repr,
)
def test_more_features_than_there_are_is_refused(coder):
    dictionary = make_dictionary("dense")
    with pytest.raises(ExpanderError, match="k must be between 1 and the number of features, 40, not 41"):
        coder(dictionary, gaussian(2, 24))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BatchTopK(0), "k must be at least 1"),
        (lambda: Candidates(0), "k must be at least 1"),
        (lambda: Candidates(4, 3), "candidates must be at least k = 4, not 3"),
        (lambda: BatchTopK(3, threshold=-1.0), "threshold must be at least 0"),
        (lambda: NIHT(3, iterations=0), "iterations must be at least 1"),
        (lambda: HTP(3, tolerance=-1.0), "tolerance must be at least 0"),
        (lambda: FISTA(0.0), "penalty must be above 0 and at most 1, not 0.0"),
        (lambda: CoordinateDescent(1.5), "penalty must be above 0 and at most 1, not 1.5"),
        (lambda: FISTA(0.1, gap=float("nan")), "gap must be at least 0"),
        (lambda: FISTA(0.1, refit=True), "refit needs k"),
        (lambda: SSMP(3, rounds=0), "rounds must be at least 1"),
        (lambda: SSMP(3, steps=0), "steps must be at least 1"),
        (lambda: VotingDecoder(3, agree=1), "agree must be at least 2"),
        (lambda: VotingDecoder(3, tolerance=-1.0), "tolerance must be at least 0"),
        (lambda: BasisPursuit(tolerance=0.0), "tolerance must be at least 1e-10"),
        (lambda: BasisPursuit(tolerance=0.1), "tolerance must be at most 0.0001"),
    ],
)
def test_bad_parameters_are_refused(make, sentence):
    with pytest.raises(ExpanderError, match=sentence):
        make()
