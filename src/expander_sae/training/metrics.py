"""What is measured while training, and where it goes: a JSONL file, TensorBoard and Weights & Biases if asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from expander_sae.errors import ExpanderError

Sink = Literal["tensorboard", "wandb"]
"""Where metrics can go besides the file."""


class StepMetrics(NamedTuple):
    """One step of one dictionary; tensors stay on their device until a row is written."""

    tokens: int
    squares: Tensor
    """Sum of the squared residual, in all processes together."""
    variation: Tensor
    """What predicting the batch's mean would leave."""
    auxk: Tensor
    """The loss of the dead features; zero without any."""
    active: Tensor
    """Active features, summed over tokens."""
    dead: Tensor
    """Share of features that are dead."""
    grad_norm: Tensor
    """Before clipping."""
    learning_rate: float


class Meter:
    """Sums up steps until a row is made of them."""

    SUMS = ("squares", "variation", "auxk", "active", "grad_norm")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, Tensor | float] = dict.fromkeys(self.SUMS, 0.0)
        self._steps, self._tokens = 0, 0
        self._last: StepMetrics | None = None
        self._since = time.perf_counter()

    def add(self, step: StepMetrics) -> None:
        """Take in one step."""
        for name in self.SUMS:
            self._sums[name] = self._sums[name] + getattr(step, name).double()
        self._steps, self._tokens, self._last = self._steps + 1, self._tokens + step.tokens, step

    def leave_out(self, seconds: float) -> None:
        """Do not count this time: something else than training was done in it."""
        self._since += seconds

    @property
    def empty(self) -> bool:
        """Whether there was no step since the last row."""
        return self._last is None

    def row(self, step: int, tokens: int) -> dict[str, float]:
        """Averages since the last row, as numbers; begins anew."""
        if self._last is None:
            raise ExpanderError("There was no step since the last row of metrics.")
        sums, last = {name: float(value) for name, value in self._sums.items()}, self._last
        row = {
            "step": step,
            "tokens": tokens,
            "fvu": sums["squares"] / sums["variation"],
            "auxk": sums["auxk"] / self._steps,
            "dead": float(last.dead),
            "l0": sums["active"] / self._tokens,
            "tokens_per_second": self._tokens / (time.perf_counter() - self._since),
            "learning_rate": last.learning_rate,
            "grad_norm": sums["grad_norm"] / self._steps,
        }
        self._begin()
        return row


class Writer(Protocol):
    """Takes rows of metrics."""

    def write(self, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricsFile:
    """metrics.jsonl: one row per line, each on disk when `write` comes back."""

    def __init__(self, path: Path, keep_until: int) -> None:
        """Goes on after the rows of at most `keep_until` tokens; later ones are of steps that will be done again."""
        self._path = path
        self.rows = [row for row in read_metrics(path) if row["tokens"] <= keep_until] if path.exists() else []
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (it stays open; `close` closes it)

    def write(self, row: Mapping[str, float]) -> None:
        """Append a row."""
        with _written(self._path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExpanderError(
            f"{path} cannot be written ({error.strerror}); a checkpoint beside it is still whole, and --resume goes on "
            "from there once the disk allows it."
        ) from error


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file; a last line that a killed run left unfinished is not one."""
    rows: list[dict[str, float]] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


class TensorBoardWriter:
    """The same rows as TensorBoard events."""

    def __init__(self, folder: Path, done: int) -> None:
        """Goes on after `done` tokens; what an earlier part of the run wrote about later ones is purged."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ExpanderError("Metrics for TensorBoard need it: pip install 'expander-sae[tensorboard]'.") from None
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=done + 1 if done else None)

    def write(self, row: Mapping[str, float]) -> None:
        """Add every number at its token count."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, int(row["tokens"]))
        self._writer.flush()

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()


class WandbWriter:
    """The same rows as a run of Weights & Biases."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise ExpanderError("Metrics for Weights & Biases need it: pip install 'expander-sae[wandb]'.") from None
        self._run = wandb.init(
            project="expander-sae", name=name, config=dict(config), dir=str(folder), reinit="create_new"
        )

    def write(self, row: Mapping[str, float]) -> None:
        """Log the row."""
        self._run.log(dict(row))

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def extra_writer(sink: Sink, folder: Path, name: str, config: Mapping[str, Any], done: int) -> Writer:
    """The writer that a name stands for."""
    if sink == "tensorboard":
        return TensorBoardWriter(folder, done)
    if sink == "wandb":
        return WandbWriter(folder, name, config)
    raise ExpanderError(f"Metrics can also go to tensorboard or wandb, not to {sink!r}.")
