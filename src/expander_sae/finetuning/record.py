"""The metrics of a fine-tuning run: averaged over some steps, kept in memory, and in a file if there is a folder."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from expander_sae.training.journal import METRICS
from expander_sae.training.metrics import MetricsFile


class Record:
    """Rows of step, tokens, kl, fvu, ce, grad_norm, learning_rate and tokens_per_second."""

    def __init__(self, folder: Path | None, done: int) -> None:
        """Goes on after `done` tokens."""
        self._file = None if folder is None else MetricsFile(folder / METRICS, done)
        self.rows: list[dict[str, float]] = [] if self._file is None else self._file.rows
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._tokens, self._since = 0, time.perf_counter()

    def add(self, tokens: int, measured: Mapping[str, float]) -> None:
        """Take in one step."""
        self._tokens += tokens
        for name, value in measured.items():
            self._sums[name] += tokens * value

    def write(self, step: int, tokens: int) -> dict[str, float]:
        """Make a row of the averages since the last one, weighted by tokens."""
        speed = self._tokens / (time.perf_counter() - self._since)
        averages = {name: total / self._tokens for name, total in self._sums.items()}
        row = {"step": step, "tokens": tokens, **averages, "tokens_per_second": speed}
        self.rows.append(row)
        if self._file is not None:
            self._file.write(row)
        self._begin()
        return row

    def close(self) -> None:
        """Finish what was written."""
        if self._file is not None:
            self._file.close()
