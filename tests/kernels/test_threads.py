"""Work split over threads: each piece once, mistakes reported, and no thread that waits for ever."""

import multiprocessing
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from expander_sae.kernels.threads import one_thread, over_tiles


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    """Several threads, however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def times_visited(tokens: int, tile: int) -> np.ndarray:
    visits = np.zeros(tokens, np.int64)

    def work(start: int, stop: int) -> None:
        visits[start:stop] += 1

    over_tiles(work, tokens, tile)
    return visits


@pytest.mark.parametrize(("tokens", "tile"), [(1, 8), (8, 8), (9, 8), (100, 8), (1000, 1), (7, 100)])
def test_every_token_is_worked_on_once(tokens: int, tile: int) -> None:
    assert (times_visited(tokens, tile) == 1).all()


def test_a_mistake_is_reported_and_the_threads_go_on_working() -> None:
    def fail(start: int, stop: int) -> None:
        if start:
            raise ArithmeticError("no")

    for _ in range(20):
        with pytest.raises(ArithmeticError):
            over_tiles(fail, 64, 1)
    assert (times_visited(64, 1) == 1).all()


def test_work_that_splits_its_work_ends() -> None:
    visits = np.zeros((40, 40), np.int64)

    def outer(start: int, stop: int) -> None:
        for row in range(start, stop):

            def inner(first: int, last: int, row: int = row) -> None:
                visits[row, first:last] += 1

            over_tiles(inner, 40, 1)

    over_tiles(outer, 40, 1)
    assert (visits == 1).all()


def test_a_forked_process_starts_threads_of_its_own() -> None:
    times_visited(100, 1)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert (pool.apply(times_visited, (100, 1)) == 1).all()


def test_one_thread_ends_with_as_many_as_before() -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
