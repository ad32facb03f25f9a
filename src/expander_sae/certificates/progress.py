"""Working through all features on all threads, telling how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from expander_sae.kernels.threads import over_tiles

Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]
"""Called with a stage, what is done of it, and all there is to do."""

FEATURES_AT_ONCE = 1 << 14
TILE = 256


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody hears."""


def over_features(work: Callable[[int, int], Result], n: int, stage: str, report: Progress) -> list[Result]:
    """What `work(start, stop)` gives for pieces that cover range(n), in any order; work releases the lock."""
    results: list[Result] = []
    for start in range(0, n, FEATURES_AT_ONCE):
        stop = min(start + FEATURES_AT_ONCE, n)

        def piece(first: int, last: int, start: int = start) -> None:
            results.append(work(start + first, start + last))

        over_tiles(piece, stop - start, TILE)
        report(stage, stop, n)
    return results
