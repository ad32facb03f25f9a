"""The metrics of one dictionary: averaged over some steps, kept in memory, and written wherever they are wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from expander_sae.errors import ExpanderError
from expander_sae.training.config import TrainConfig
from expander_sae.training.metrics import Meter, MetricsFile, Sink, Writer, extra_writer

METRICS = "metrics.jsonl"
"""The file of rows in the folder of a dictionary."""


class Journal:
    """Rows of metrics, in the folder too if there is one."""

    def __init__(self, folder: Path | None, config: TrainConfig, done: int, also: Sequence[Sink]) -> None:
        """Goes on after `done` tokens."""
        self.meter, self.rows = Meter(), list[dict[str, float]]()
        self._writers: list[Writer] = []
        if folder is not None:
            file = MetricsFile(folder / METRICS, done)
            self.rows += file.rows
            self._writers += [file, *(extra_writer(sink, folder, config.name, config.to_json(), done) for sink in also)]

    def write(self, step: int, tokens: int, probed: Mapping[str, float]) -> dict[str, float]:
        """Make a row of what was measured since the last one, and of what a probe found."""
        row = self.meter.row(step, tokens)
        for name, value in probed.items():
            if name in row:
                raise ExpanderError(f"The probe gives {name!r}, which training itself measures; use another name.")
            # A file of JSON holds finite numbers only, and one that is not has nothing to say.
            if math.isfinite(value):
                row[name] = float(value)
        if not math.isfinite(row["fvu"]):
            raise ExpanderError(f"The loss is not finite after {tokens:,} tokens; use a smaller learning rate.")
        self.rows.append(row)
        for writer in self._writers:
            writer.write(row)
        return row

    def close(self) -> None:
        """Finish what was written."""
        for writer in self._writers:
            writer.close()
