"""One line of the benchmark's table, and the table as text, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from expander_sae.files import json_text


@dataclass(frozen=True)
class Goal:
    """What a result should reach; without a bound it is only measured."""

    least: float = 0.0
    """How many times more the alternative should take at least."""
    most: float = math.inf
    """Bytes that ours may take at most."""

    def __str__(self) -> str:
        if math.isfinite(self.most):
            return f"<= {amount(self.most, 'bytes')}"
        return f">= {self.least:g}x" if self.least > 0 else "measured"


@dataclass(frozen=True)
class Effort:
    """What has to be done at least, whatever the machine."""

    multiply_adds: float
    bytes: float
    """Of the columns, their moments and the tokens that are read, each once."""

    def __str__(self) -> str:
        return f"{count_text(self.multiply_adds)} in {amount(self.bytes, 'bytes')}"


@dataclass(frozen=True)
class Result:
    """What was done, against what, and how they compare."""

    work: str
    """What was done, with its sizes."""
    against: str
    """The alternative."""
    ours: float
    """Seconds, or bytes."""
    theirs: float
    """Seconds, or bytes."""
    unit: str
    """ "s" or "bytes"."""
    goal: Goal
    """What it should reach."""
    our_effort: Effort | None = None
    """Of what `ours` is the time."""
    their_effort: Effort | None = None
    """Of what `theirs` is the time; unknown of what other libraries do inside."""
    note: str = ""
    """A limit or a remark that belongs beside the number."""
    is_right: bool = True
    """Whether what was computed is what it should be, where that was looked at."""

    @property
    def ratio(self) -> float:
        """How many times more the alternative takes."""
        return self.theirs / self.ours

    @property
    def reached(self) -> bool:
        """Whether it is right and reaches its goal."""
        return self.is_right and self.theirs >= self.goal.least * self.ours and self.ours <= self.goal.most


def amount(value: float, unit: str) -> str:
    """A number of seconds or bytes, readable."""
    if unit == "s":
        return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
    for prefix in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {prefix}" if prefix == "B" else f"{value:.1f} {prefix}"
        value /= 1024
    return f"{value:.2f} GiB"


def count_text(count: float) -> str:
    """A large number, readable."""
    for prefix in ("", "k", "M"):
        if count < 1000:
            return f"{count:.3g}{prefix}"
        count /= 1000
    return f"{count:.3g}G"


def ratio_text(ratio: float) -> str:
    """A ratio, readable."""
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2f}x"


_HEADINGS = ("work", "against", "ours", "theirs", "ratio", "goal", "reached", "our multiply-adds", "theirs do")


def _cells(result: Result) -> tuple[str, ...]:
    ours, theirs = amount(result.ours, result.unit), amount(result.theirs, result.unit)
    reached = "yes" if result.reached else "no"
    efforts = (str(each) if each is not None else "" for each in (result.our_effort, result.their_effort))
    return result.work, result.against, ours, theirs, ratio_text(result.ratio), str(result.goal), reached, *efforts


def as_table(results: Sequence[Result], machine: dict[str, str]) -> Table:
    """The results for a terminal."""
    title = f"{machine['processor']}, {machine['vector instructions'].split()[0]}, {machine['threads']} threads"
    table = Table(title=f"{title}, medians of interleaved runs")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in ("ours", "theirs", "ratio") else "left")
    for result in results:
        table.add_row(*_cells(result))
    return table


def as_markdown(results: Sequence[Result], machine: dict[str, str], command: str) -> str:
    """The results as a page, with the machine and the command that made it."""
    lines = [f"Made by `{command}`. Ratios within one process, medians of interleaved repeats.", ""]
    lines += ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    lines += ["| " + " | ".join(_cells(result)) + " |" for result in results]
    lines += [""] + [f"- {result.work}, {result.against}: {result.note}" for result in results if result.note]
    lines += ["", "Multiply-adds and bytes are what has to be done and read at least, whatever the machine."]
    lines += ["", "Machine: " + "; ".join(f"{key} {value}" for key, value in machine.items()) + "."]
    return "\n".join(lines) + "\n"


def as_json(results: Sequence[Result], machine: dict[str, str], command: str) -> str:
    """The results for programs."""
    rows = [
        asdict(result) | {"goal": str(result.goal), "reached": result.reached, "ratio": result.ratio}
        for result in results
    ]
    return json_text({"command": command, "machine": machine, "results": rows})
