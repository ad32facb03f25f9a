"""The whole table, case by case."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from expander_sae.benchmarking.cases import (
    Sizes,
    check_sklearn,
    file_size,
    omp_against_dense_and_sklearn,
    select_against_dense,
    training_step,
)
from expander_sae.benchmarking.peak_memory import peak_memory
from expander_sae.benchmarking.results import Result
from expander_sae.benchmarking.trainer_steps import trainer_steps

Case = tuple[str, Callable[[], list[Result]]]


def cases(repeats: int) -> Iterator[Case]:
    """Every case of the table with a name to show while it runs; the slowest dense ones get fewer repeats."""
    check_sklearn()
    few = max(1, repeats // 3)
    yield "select, 16384 features", lambda: select_against_dense(Sizes(), 25, 12, repeats)
    yield "select, 131072 features", lambda: select_against_dense(Sizes(n=131072, tokens=1024), 50, None, few)
    yield "training step", lambda: training_step(Sizes(tokens=1024), repeats)
    yield "steps of the trainer", lambda: trainer_steps(repeats)
    yield "orthogonal matching pursuit", lambda: omp_against_dense_and_sklearn(Sizes(tokens=1024), 64, repeats)
    yield "size on disk", lambda: file_size(Sizes())
    yield "peak memory", peak_memory
