"""Intervals over documents: they cover, they are paired, and they say when they do not know."""

from __future__ import annotations

import math

import torch

from expander_sae.evaluation.bootstrap import Bootstrap, DocumentSums

EXPERIMENTS, DOCUMENTS = 200, 60


def drawn(experiment):
    """Documents of random lengths, whose tokens' values share a mean that differs from document to document."""
    generator = torch.Generator().manual_seed(experiment)
    length = torch.randint(5, 50, (DOCUMENTS,), generator=generator).double()
    level = 1 + torch.randn(DOCUMENTS, generator=generator).double()
    return level * length, length


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    bootstrap, covered = Bootstrap(DOCUMENTS), 0
    for experiment in range(EXPERIMENTS):
        estimate = bootstrap.ratio(*drawn(experiment))
        assert estimate.low <= estimate.value <= estimate.high
        covered += estimate.low <= 1 <= estimate.high
    assert 0.89 <= covered / EXPERIMENTS <= 0.99


def test_intervals_shrink_with_documents():
    few, many = (Bootstrap(count).ratio(*(part[:count] for part in drawn(0))) for count in (6, 60))
    assert many.half_width < few.half_width


def test_numbers_are_paired():
    values, length = drawn(0)
    bootstrap = Bootstrap(DOCUMENTS)
    alone = bootstrap.ratio(values, length)
    assert bootstrap.ratio(values, length) == alone == Bootstrap(DOCUMENTS).ratio(values, length)
    shifted = bootstrap.ratio(values + 0.5 * length - values, length)
    assert abs(shifted.value - 0.5) < 1e-12
    assert shifted.half_width < 1e-12


def test_a_single_document_has_no_interval():
    estimate = Bootstrap(1).ratio(torch.ones(1).double(), torch.full((1,), 4.0).double())
    assert estimate.value == 0.25
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.half_width)


def test_what_is_not_defined_is_not_a_number():
    bootstrap = Bootstrap(3)
    assert math.isnan(bootstrap.ratio(torch.ones(3).double(), torch.tensor([1.0, -2.0, 1.0]).double()).value)
    # Defined on these documents, but not on others of their kind.
    shaky = bootstrap.ratio(torch.ones(3).double(), torch.tensor([1.0, -2.0, 2.0]).double())
    assert shaky.value == 3
    assert math.isnan(shaky.low)
    assert math.isnan(shaky.high)


def test_sums_are_kept_by_document():
    sums = DocumentSums(3)
    sums.add(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0, 2]))
    sums.add(torch.tensor([True, False]), torch.tensor([0, 1]))
    assert sums.sums.tolist() == [3, 0, 4]
    assert sums.total == 7
