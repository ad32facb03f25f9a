"""`select` of every implementation against the definition, and the definition against dense torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError, Support
from expander_sae.kernels import reference, select
from expander_sae.kernels.cpu.select import PROBE_GROUPS, PROBES_PER_RANK
from tests.uneven import shortened

COMPILED = ["cpu"]


def problem(seed, batch, m, n, d, *, grid=False, dtype=torch.float32, uneven=False):
    """x, values, rows, bias; on a coarse grid so that sums are exact and ties are common if `grid`."""
    generator = torch.Generator().manual_seed(seed)
    support = Support.make("uniform", m=m, n=n, d=d, seed=seed)
    draw = (
        (lambda *shape: torch.randint(-2, 3, shape, generator=generator).to(dtype))
        if grid
        else (lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype))
    )
    rows = shortened(support.rows, seed) if uneven else support.rows
    return draw(batch, m), draw(n, d), rows, draw(n)


@st.composite
def sizes(draw):
    m = draw(st.integers(1, 40))
    n = draw(st.integers(1, 150))
    return {
        "seed": draw(st.integers(0, 10**6)),
        "batch": draw(st.sampled_from([0, 1, 2, 63, 64, 65, 130])),
        "m": m,
        "n": n,
        "d": draw(st.integers(1, min(m, 9))),
        "k": draw(st.one_of(st.just(n), st.just(1), st.integers(1, n))),
        "signed": draw(st.booleans()),
        "with_bias": draw(st.booleans()),
        "grid": draw(st.booleans()),
        "uneven": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
    }


@pytest.mark.parametrize("implementation", COMPILED)
@settings(deadline=None, max_examples=150)
@given(case=sizes())
def test_every_implementation_equals_the_reference_to_the_last_bit(implementation, case):
    sizes_of_problem = [case[name] for name in ("seed", "batch", "m", "n", "d")]
    kind = {name: case[name] for name in ("grid", "dtype", "uneven")}
    x, values, rows, bias = problem(*sizes_of_problem, **kind)
    bias = bias if case["with_bias"] else None
    arguments = (x, values, rows, case["k"], bias, case["signed"])
    expected = select(*arguments, implementation="reference")
    found = select(*arguments, implementation=implementation)
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


@settings(deadline=None, max_examples=60)
@given(case=sizes())
def test_reference_is_the_exact_topk_of_the_dense_product(case):
    sizes_of_problem = [case[name] for name in ("seed", "batch", "m", "n", "d")]
    x, values, rows, bias = problem(*sizes_of_problem, grid=True, uneven=case["uneven"])
    # What stands behind the last row of a column goes to a coordinate that is then cut off.
    dense = torch.zeros(case["m"] + 1, case["n"]).scatter_(0, rows.T.long() % (case["m"] + 1), values.T)[:-1]
    scores = x @ dense + bias
    ranking = scores.abs() if case["signed"] else scores
    # On the grid every sum is exact, so the oracle can break ties by sorting on (score, index).
    order = torch.argsort(ranking, dim=1, descending=True, stable=True)[:, : case["k"]]
    found = select(x, values, rows, case["k"], bias, case["signed"], implementation="reference")
    assert torch.equal(found[1], order)
    assert torch.equal(found[0], scores.gather(1, order))


def test_reference_does_not_depend_on_its_chunks(monkeypatch):
    x, values, rows, bias = problem(3, 5, 20, 200, 4, grid=True)
    whole = reference.select(x, values, rows, 7, bias, True)
    monkeypatch.setattr(reference, "CHUNK_ELEMENTS", 5 * 9)
    chunked = reference.select(x, values, rows, 7, bias, True)
    assert torch.equal(whole[0], chunked[0])
    assert torch.equal(whole[1], chunked[1])


@pytest.mark.parametrize("signed", [False, True])
def test_a_misled_first_guess_is_corrected(signed):
    """Only the features that the guess probes are large, so that it lies far above the k-th best score."""
    m, n, k = 16, 4000, 100
    x, values, rows, _ = problem(0, 70, m, n, 3)
    probes = PROBE_GROUPS * int(PROBES_PER_RANK * n / k)
    values[:: n // probes] *= 1000
    found = select(x, values, rows, k, None, signed, implementation="cpu")
    expected = select(x, values, rows, k, None, signed, implementation="reference")
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_infinite_sums_rank_as_numbers_and_sums_that_are_none_are_refused():
    rows = torch.tensor([[0, 1]] * 6, dtype=torch.int32)
    values = torch.tensor([[5e37, 5e37], [3e38, 3e38], [1, 1], [2e38, 3e38], [-3e38, -3e38], [3e38, -3e38]])
    x = torch.tensor([[2.0, 2.0]])
    found = select(x, values, rows, 3, implementation="cpu")
    assert found[1].tolist() == [[1, 3, 0]]
    assert found[0].tolist()[0][:2] == [float("inf")] * 2
    with pytest.raises(
        ExpanderError, match=r"Sums of x and values leave the range of torch\.float32; scale them down\."
    ):
        select(x, values, rows, 5, implementation="cpu")


@pytest.mark.parametrize("order", ["ascending", "descending", "equal"])
def test_candidate_lists_overflow_without_loss(order):
    """Scores that keep rising make every feature a candidate."""
    n, k = 5000, 3
    rows = torch.zeros(n, 1, dtype=torch.int32)
    values = {"ascending": torch.arange(n) + 1.0, "descending": n - torch.arange(n) * 1.0, "equal": torch.ones(n)}
    x = torch.ones(65, 2)
    found = select(x, values[order][:, None], rows, k, implementation="cpu")
    expected = {"ascending": [n - 1, n - 2, n - 3], "descending": [0, 1, 2], "equal": [0, 1, 2]}
    assert found[1].tolist() == [expected[order]] * 65


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    x, values, rows, bias = problem(1, 9, 30, 80, 5)
    x, values, bias = x.to(dtype), values.to(dtype), bias.to(dtype)
    found = select(x, values, rows, 6, bias)
    expected = select(x.float(), values.float(), rows, 6, bias.float())
    assert found[0].dtype == dtype
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0].to(dtype))


def test_input_may_have_any_strides():
    x, values, rows, bias = problem(2, 12, 30, 80, 5)
    expected = select(x, values, rows, 4, bias)
    for view in (x.T.contiguous().T, torch.stack([x, x], dim=2)[:, :, 0]):
        assert not view.is_contiguous()
        assert torch.equal(select(view, values, rows, 4, bias)[1], expected[1])
    assert torch.equal(select(x, values.T.contiguous().T, rows.T.contiguous().T, 4, bias)[1], expected[1])


def test_results_do_not_depend_on_threads():
    x, values, rows, bias = problem(4, 700, 50, 600, 5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = select(x, values, rows, 9, bias)
        torch.set_num_threads(2)
        together = select(x, values, rows, 9, bias)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])


@pytest.mark.parametrize("signed", [False, True])
def test_gradients_are_those_of_the_dense_product_at_the_selected_entries(signed):
    x, values, rows, bias = (
        t.requires_grad_() if t.is_floating_point() else t for t in problem(5, 6, 20, 50, 4, dtype=torch.float64)
    )
    scores, indices = select(x, values, rows, 5, bias, signed)
    weights = torch.randn(scores.shape, dtype=torch.float64)
    ours = torch.autograd.grad((scores * weights).sum(), (x, values, bias))
    dense = torch.zeros(20, 50, dtype=torch.float64).scatter(0, rows.T.long(), values.T)
    picked = (x @ dense + bias).gather(1, indices)
    expected = torch.autograd.grad((picked * weights).sum(), (x, values, bias))
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_gradcheck():
    x, values, rows, bias = (
        t.requires_grad_() if t.is_floating_point() else t for t in problem(6, 3, 8, 12, 3, dtype=torch.float64)
    )
    assert torch.autograd.gradcheck(lambda x, v, b: select(x, v, rows, 4, b)[0], (x, values, bias))


def test_operator_is_registered_correctly():
    x, values, rows, bias = problem(7, 4, 8, 12, 3)
    arguments = (x.requires_grad_(), values.requires_grad_(), rows, 4, bias, False, "auto")
    torch.library.opcheck(torch.ops.expander_sae.select.default, arguments)


@settings(deadline=None)
@given(
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.integers(0, 299),
    st.integers(0, 20),
    st.booleans(),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_tokens_that_are_not_finite_are_refused_after_a_look_and_without(bad, token, coordinate, with_bias, dtype):
    """The kernel looks for them where it reads tokens, in coordinates that no column has, too: the last one here."""
    x, values, rows, bias = problem(8, 300, 20, 400, 3)
    x = torch.nn.functional.pad(x, (0, 1)).to(dtype)
    x[token, coordinate] = bad
    with pytest.raises(ExpanderError, match=rf"x must be finite, but 1 of its 300 rows .* the first is row {token}\."):
        select(x, values, rows, 3, bias if with_bias else None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_by_name_and_row(bad):
    x, values, rows, bias = problem(8, 10, 20, 30, 3)
    spoiled = x.clone()
    spoiled[4, 7], spoiled[8, 0] = bad, bad
    with pytest.raises(ExpanderError, match=r"x must be finite, but 2 of its 10 rows .* the first is row 4\."):
        select(spoiled, values, rows, 3, bias)
    spoiled = values.clone()
    spoiled[11, 1] = bad
    with pytest.raises(ExpanderError, match=r"values must be finite, .* the first is row 11\."):
        select(x, spoiled, rows, 3, bias)
    spoiled = bias.clone()
    spoiled[29] = bad
    with pytest.raises(ExpanderError, match=r"bias must be finite, .* the first is row 29\."):
        select(x, values, rows, 3, spoiled)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": 0}, "k must be between 1 and the number of features, 30, not 0."),
        ({"k": 31}, "k must be between 1 and the number of features, 30, not 31."),
        ({"x": torch.zeros(3)}, "x must be a floating-point tensor"),
        ({"x": torch.zeros(3, 20, dtype=torch.int64)}, "x must be a floating-point tensor"),
        ({"values": torch.zeros(30, 2)}, "values and rows must both be"),
        ({"rows": torch.zeros(30, 3, dtype=torch.int64)}, "rows must be int32"),
        ({"bias": torch.zeros(29)}, "bias must have one entry"),
        ({"implementation": "quick"}, "implementation must be one of"),
        ({"rows": torch.full((30, 3), 20, dtype=torch.int32)}, "rows must lie between 0 and 19"),
        ({"rows": torch.full((30, 3), -1, dtype=torch.int32)}, "Every column needs a row"),
        ({"rows": torch.tensor([[0, -1, 1]] * 30, dtype=torch.int32)}, "-1 only stands behind the last row"),
    ],
)
def test_impossible_requests_get_a_sentence(change, sentence):
    x, values, rows, bias = problem(9, 10, 20, 30, 3)
    arguments = {"x": x, "values": values, "rows": rows, "k": 3, "bias": bias} | change
    with pytest.raises(ExpanderError) as refusal:
        select(**arguments)
    assert sentence in str(refusal.value)
