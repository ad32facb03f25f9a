"""Costs by formula against operations that are counted: by torch where they are dense, by hand where they are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, CoordinateDescent, TopK
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.studies.coding.config import (
    DENSE,
    EXPANDER,
    KNOWN_CODES,
    KNOWN_DICTIONARY,
    MLP,
    NEITHER,
    RELU,
    TOPK,
    CodingConfig,
)
from expander_sae.studies.coding.costs import CountingDictionary, Sizes, Tally, counted_lasso
from expander_sae.studies.coding.learning import descended, forward, new_encoder
from expander_sae.studies.coding.world import World

CONFIG = CodingConfig(
    m=12, n=30, d=4, k=3, hidden=20, samples=64, batch=16, tokens=64, solver_tokens=64, test_tokens=24
)


def sizes(truth: str) -> Sizes:
    return Sizes(CONFIG.m, CONFIG.n, CONFIG.entries(truth), CONFIG.k, CONFIG.hidden)


def counted(flops: FlopCounterMode, tokens: int) -> float:
    """Multiply-adds per token."""
    return flops.get_total_flops() / 2 / tokens


@pytest.mark.parametrize("coder", [TOPK, RELU, MLP])
@pytest.mark.parametrize("setting", [KNOWN_CODES, KNOWN_DICTIONARY, NEITHER])
def test_training_and_running_an_encoder_takes_what_torch_counts(coder: str, setting: str) -> None:
    world = World.draw(CONFIG, DENSE, 0)
    encoder = new_encoder(CONFIG, coder, world.dictionary, 0)
    with FlopCounterMode(display=False) as flops:
        encoder(world.test.x)
    assert counted(flops, 24) == sizes(DENSE).encoding(coder)
    with FlopCounterMode(display=False) as flops:
        codes, residual = forward(CONFIG, setting, coder, encoder, world.dictionary, world.test.x)
        (codes if setting == KNOWN_CODES else residual).square().sum().backward()
    assert counted(flops, 24) == sizes(DENSE).encoder_step(coder, setting)


def test_a_gradient_step_takes_two_products() -> None:
    world = World.draw(CONFIG, DENSE, 0)
    found = []
    for steps in (2, 7):
        with FlopCounterMode(display=False) as flops:
            descended(world.dictionary, world.test.x, torch.zeros(24, CONFIG.n), steps, 0.1)
        found.append(counted(flops, 24))
    assert found[1] - found[0] == sizes(DENSE).descending(5) == 5 * 2 * 12 * 30


def pursued_by_hand(matrix: np.ndarray, x: np.ndarray, k: int) -> tuple[set[int], int]:
    """The features of OMP and its multiply-adds, touching nothing that is zero or stays as it is."""
    touching = (matrix != 0).sum(axis=1)
    entries = int((matrix != 0).sum(axis=0)[0])
    correlations, chosen, count = matrix.T @ x, list[int](), int(touching.sum())
    codes, residual = np.zeros(0), x
    for step in range(1, k + 1):
        chosen.append(int(np.argmax(np.where(np.isin(np.arange(matrix.shape[1]), chosen), -np.inf, correlations))))
        count += step * entries  # inner products with the columns so far, itself included
        columns = matrix[:, chosen]
        fit = np.linalg.lstsq(columns, x, rcond=None)[0]
        count += step * step  # two triangular solves
        change = columns @ (fit - np.append(codes, 0.0))
        count += step * entries
        changed = np.flatnonzero((columns != 0).any(axis=1))
        codes, residual = fit, residual - change
        count += int(touching[changed].sum())
        correlations = matrix.T @ residual
    return set(chosen), count


@pytest.mark.parametrize("truth", [DENSE, EXPANDER])
def test_pursuit_takes_what_the_formula_says(truth: str) -> None:
    world = World.draw(CONFIG, truth, 0)
    matrix, price = world.dictionary.to_dense().detach().double().numpy(), sizes(truth).pursuing()
    found = OMP(CONFIG.k)(world.dictionary, world.test.x)
    counts, same = [], 0
    for token, x in enumerate(world.test.x.double().numpy()):
        features, count = pursued_by_hand(matrix, x, CONFIG.k)
        counts.append(count)
        same += features == set(found.indices[token].tolist())
    assert same >= 20  # of 24; non-negative codes may differ
    if truth == DENSE:
        assert set(counts) == {price}
    else:  # columns share coordinates, but those that many features touch are chosen more often
        assert 0.7 * price < np.mean(counts) < 1.15 * price


@pytest.mark.parametrize("truth", [DENSE, EXPANDER])
def test_a_counting_dictionary_counts_what_loops_would_do(truth: str) -> None:
    dictionary: Dictionary = World.draw(CONFIG, truth, 0).dictionary
    entries, tally = CONFIG.entries(truth), Tally()
    counting = CountingDictionary(dictionary, entries, tally)
    matrix = dictionary.to_dense()
    x, codes = torch.randn(5, 12), Codes(torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([[1, 2], [3, 4]]), 30)

    def of(call: Callable[[], object]) -> int:
        tally.total = 0
        call()
        return tally.total

    with torch.no_grad():
        assert of(lambda: counting.correlate(x)) == 5 * int((matrix != 0).sum())
        assert of(lambda: counting.synthesize(codes)) == 3 * entries
        assert of(lambda: counting.correlate_at(x[:2], codes.indices)) == 4 * entries
        assert of(lambda: counting.gram(codes.indices)) == 2 * 4 * entries
        assert torch.equal(counting.correlate(x), dictionary.correlate(x))


@pytest.mark.parametrize("truth", [DENSE, EXPANDER])
def test_the_lasso_is_the_same_counted_and_its_passes_count(truth: str) -> None:
    world = World.draw(CONFIG, truth, 0)
    entries = CONFIG.entries(truth)
    codes, price = counted_lasso(world.dictionary, entries, world.test.x, 0.1)
    plain = CoordinateDescent(0.1)(world.dictionary, world.test.x)
    assert torch.equal(codes.to_dense(), plain.to_dense())
    product, used = CONFIG.n * entries, float(codes.l0.double().mean())
    least = 3 * product  # the penalty, and correlations before and after anything is used
    assert price > least + used**2
    loose = counted_lasso(world.dictionary, entries, world.test.x, 0.5)[1]
    assert loose < price  # fewer features, fewer passes


def test_a_library_step_learns_k_columns_and_k_rows_of_the_encoder() -> None:
    generator = torch.Generator().manual_seed(0)
    sae = SparseAutoencoder(DenseDictionary(12, 30, generator=generator), TopK(3), tied=False)
    codes, residual, _ = sae.residual(torch.randn(1, 12, generator=generator))
    assert int(codes.l0) == 3
    residual.square().sum().backward()
    learned = [each.values.grad for each in (sae.dictionary, sae.encoder)]  # type: ignore[union-attr]
    touched = sum(int((gradient != 0).sum()) for gradient in learned if gradient is not None)
    forward_and_codes = 2 * 3 * 12
    assert sizes(DENSE).library_step(TOPK, 0) == touched + forward_and_codes
    assert sizes(EXPANDER).library_step("omp", 100) == 100 + 2 * 3 * 4  # columns forward, and backward to them


def test_least_squares_adds_up_what_is_used() -> None:
    world = World.draw(CONFIG, DENSE, 0)
    sums = sum(int((codes != 0).sum()) ** 2 + int((codes != 0).sum()) * CONFIG.m for codes in world.train.codes)
    assert sizes(DENSE).least_squares(64) == sums + 30**3 // 3 + 30**2 * 12


def test_an_expander_encoder_costs_as_many_times_less_as_it_has_values() -> None:
    assert sizes(DENSE).encoding(TOPK) == 3 * sizes(EXPANDER).encoding(TOPK) == 30 * 12
    assert sizes(EXPANDER).encoding(MLP) == 30 * 4 + 12 * 20 + 20 * 30


def test_dictionaries_are_of_the_kind_that_is_priced() -> None:
    assert isinstance(World.draw(CONFIG, EXPANDER, 0).dictionary, ExpanderDictionary)
    assert isinstance(World.draw(CONFIG, DENSE, 0).dictionary, DenseDictionary)
