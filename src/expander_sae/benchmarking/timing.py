"""Ratios that survive a noisy machine: contestants take turns, the median of each one's turns counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(contestants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of every contestant, after one untimed round that compiles and warms up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(repeats + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            elapsed = time.perf_counter() - start
            if round_number > 0:
                times[name].append(elapsed)
    return {name: statistics.median(measured) for name, measured in times.items()}
