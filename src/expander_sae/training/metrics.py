"""What is measured while training, and where it goes: a JSONL file, TensorBoard and Weights & Biases if asked."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.files import conforms, replace_file

Sink = Literal["tensorboard", "wandb"]
"""Where metrics can go besides the file."""

SPEED = "tokens_per_second"
METRICS = "metrics.jsonl"
"""The file of rows in the folder of a dictionary."""


class Mean(NamedTuple):
    """A number of a step that a row averages: amounts of all its steps, divided by their weights.

    Tensors stay on their device until the row is written.
    """

    amount: Tensor | float
    weight: Tensor | float


Number = Mean | Tensor | float
"""What a step measured; of one that is no mean, a row tells the last."""
Numbers = Mapping[str, Number]
"""What a step measured, by name."""


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
            replace_file(path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
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
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
    except (ValueError, RecursionError):
        rows = [None]
    if not conforms(rows, list[dict[str, float]]) or not all("tokens" in row for row in rows):
        raise ExpanderError(f"{path} was edited or damaged; restore it from a copy, or take it away.")
    return rows


class TensorBoardWriter:
    """The same rows as TensorBoard events."""

    def __init__(self, folder: Path, done: int) -> None:
        """Goes on after `done` tokens; what an earlier part of the run wrote about later ones is purged."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
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
        except ModuleNotFoundError:
            raise ExpanderError("Metrics for Weights & Biases need it: pip install 'expander-sae[wandb]'.") from None
        try:
            self._run = wandb.init(
                project="expander-sae", name=name, config=dict(config), dir=str(folder), reinit="create_new"
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())[:200]
            raise ExpanderError(
                f"Weights & Biases cannot be written to ({reason}); run `wandb login`, or set WANDB_MODE=offline."
            ) from error

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


class Journal:
    """The rows of metrics of one learner: kept in memory, and written wherever they are wanted."""

    def __init__(
        self, folder: Path | None, name: str, settings: Mapping[str, Any], done: int, also: Sequence[Sink]
    ) -> None:
        """Goes on after `done` tokens."""
        self.rows = list[dict[str, float]]()
        self._writers: list[Writer] = []
        self._begin(done)
        if folder is not None:
            file = MetricsFile(folder / METRICS, done)
            self.rows += file.rows
            self._writers += [file, *(extra_writer(sink, folder, name, settings, done) for sink in also)]

    def _begin(self, tokens: int) -> None:
        self._measured: dict[str, Number] = {}
        self._tokens, self._since = tokens, time.perf_counter()

    def add(self, numbers: Numbers) -> None:
        """Take in one step."""
        for name, number in numbers.items():
            self._measured[name] = _together(self._measured.get(name), number)

    def leave_out(self, seconds: float) -> None:
        """Do not count this time: something else than learning was done in it."""
        self._since += seconds

    def write(self, step: int, tokens: int, probed: Mapping[str, float]) -> dict[str, float]:
        """Make a row of what was measured since the last one, and of what a probe found."""
        row: dict[str, float] = {"step": step, "tokens": tokens}
        row |= {name: _value(number) for name, number in self._measured.items()}
        row[SPEED] = (tokens - self._tokens) / (time.perf_counter() - self._since)
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
        self._begin(tokens)
        return row

    def close(self) -> None:
        """Finish what was written."""
        for writer in self._writers:
            writer.close()


def _together(before: Number | None, number: Number) -> Number:
    """A number of several steps: of means both sums, in double precision, and of any other the last."""
    if not isinstance(number, Mean):
        return number
    amount, weight = (each.double() if isinstance(each, Tensor) else float(each) for each in number)
    return Mean(before.amount + amount, before.weight + weight) if isinstance(before, Mean) else Mean(amount, weight)


def _value(number: Number) -> float:
    return float(number.amount) / float(number.weight) if isinstance(number, Mean) else float(number)


def last_measured(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The last row as an autoencoder keeps it: without its speed, so that the same run makes the same bytes."""
    return {name: value for name, value in rows[-1].items() if name != SPEED} if rows else {}
