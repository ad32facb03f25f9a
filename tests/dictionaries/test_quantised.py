"""Quantised values are near, quantising them again changes nothing, and gradients pass through."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.dictionaries.quantised import dequantise, quantise, scale_codes, scales_from
from expander_sae.errors import ExpanderError

EXAMPLES = settings(deadline=None, max_examples=100)
BITS = st.integers(2, 8)


def some_values(n, d, seed, sizes=0.0):
    """Normal values; `sizes` spreads the columns' norms over so many octaves on either side."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(sizes * (2 * torch.rand(n, 1, generator=generator) - 1))
    return torch.randn(n, d, generator=generator) * spread


def relative_error(values, bits):
    return float((dequantise(*quantise(values, bits)) - values).norm() / values.norm())


@EXAMPLES
@given(
    bits=BITS, n=st.integers(1, 20), d=st.integers(1, 30), seed=st.integers(0, 99), sizes=st.sampled_from([0, 5, 20])
)
def test_quantised_values_come_back_exactly(bits, n, d, seed, sizes):
    once = dequantise(*quantise(some_values(n, d, seed, sizes).clamp(-200, 200), bits))
    assert torch.equal(dequantise(*quantise(once, bits)), once)
    assert torch.equal(dequantise(*quantise(once.double(), bits)), once)


@EXAMPLES
@given(bits=BITS, d=st.integers(1, 30), seed=st.integers(0, 99))
def test_no_scale_is_better(bits, d, seed):
    """Every scale there is, tried one by one, within what the search covers."""
    values, highest = some_values(1, d, seed), 2 ** (bits - 1) - 1
    integers, scales = quantise(values, bits)
    assert integers.dtype == torch.int8
    assert int(integers.abs().max()) <= highest
    largest = float(values.abs().max())
    all_scales = scales_from(torch.arange(256))
    tried = all_scales[(all_scales <= largest / max(1, int(0.79 * highest))) & (all_scales >= 0.6 * largest / highest)]
    rounded = (values / tried[:, None]).round().clamp(-highest, highest) * tried[:, None]
    least = float((rounded - values).square().sum(dim=1).min())
    assert float((dequantise(integers, scales) - values).square().sum()) <= least * (1 + 1e-5)


@pytest.mark.parametrize(("bits", "at_most"), [(8, 0.0045), (6, 0.018), (4, 0.075), (2, 0.45)])
@pytest.mark.parametrize("d", [7, 64])
def test_error(bits, d, at_most):
    at_most *= 1.0 if d == 7 else 1.8  # the largest of more values is further from the rest
    assert at_most / 4 < relative_error(some_values(4000, d, 0), bits) < at_most


def test_the_search_beats_the_largest_value_over_the_range():
    values = some_values(4000, 7, 0)
    scale = values.abs().amax(dim=1, keepdim=True) / 7
    plain = float(((values / scale).round() * scale - values).norm() / values.norm())
    assert relative_error(values, 4) < 0.96 * plain


def test_zero_columns_and_single_values():
    assert torch.equal(dequantise(*quantise(torch.zeros(3, 4), 4)), torch.zeros(3, 4))
    values = torch.tensor([[0.0, 0.0, -3.0], [1.0, 1.0, 1.0], [2.0**-23, 0.0, 0.0]])
    assert torch.allclose(dequantise(*quantise(values, 8)), values, rtol=0.01)
    assert torch.equal(dequantise(*quantise(torch.full((2, 2), 2.0**-40), 8)), torch.zeros(2, 2))


def test_every_scale_has_a_byte_of_its_own():
    codes = torch.arange(256, dtype=torch.uint8)
    scales = scales_from(codes)
    assert torch.equal(scale_codes(scales), codes)
    assert (float(scales[0]), float(scales[-1])) == (2.0**-24, 240.0)
    ratios = scales[1:] / scales[:-1]
    assert bool((ratios > 1).all())
    assert float(ratios.max()) <= 1.125


def test_float16_holds_what_comes_back():
    values = dequantise(*quantise(some_values(500, 7, 0, sizes=3), 8))
    assert torch.equal(values.half().float(), values)


@pytest.mark.parametrize("bits", [1, 9, 0, -4])
def test_other_numbers_of_bits(bits):
    with pytest.raises(ExpanderError, match=f"between 2 and 8 bits, not {bits}"):
        quantise(torch.ones(2, 2), bits)


@pytest.mark.parametrize("bad", [1e5, float("inf"), float("nan")])
def test_values_that_no_scale_reaches(bad):
    with pytest.raises(ExpanderError, match=r"cannot be quantised to 8 bits, only up to 30480\."):
        quantise(torch.tensor([[1.0, 2.0], [bad, 0.0]]), 8)
    assert dequantise(*quantise(torch.tensor([[30480.0]]), 8)).item() == 30480
