"""What a line of the benchmark's table says follows from its numbers and its goal."""

from __future__ import annotations

import json
import platform

import pytest
import torch

from expander_sae.benchmarking.measure import describe_machine
from expander_sae.benchmarking.results import Effort, Goal, Result, as_json, as_markdown

MACHINE = {"processor": "a processor", "threads": "2"}


def result(ours: float, theirs: float, goal: Goal, **rest: object) -> Result:
    return Result("work", "against", ours, theirs, "bytes", goal, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "text", "reached"),
    [
        (result(2.0, 50.0, Goal(25)), ">= 25x", True),
        (result(2.0, 49.0, Goal(25)), ">= 25x", False),
        (result(64 << 20, 1.0, Goal(most=64 << 20)), "<= 64.0 MiB", True),
        (result((64 << 20) + 1, 1 << 40, Goal(most=64 << 20)), "<= 64.0 MiB", False),
        (result(2.0, 1.0, Goal()), "measured", True),
        (result(1.0, 9.0, Goal(1), is_right=False), ">= 1x", False),
    ],
)
def test_goal_and_verdict_are_one_fact(line: Result, text: str, reached: bool) -> None:
    assert (str(line.goal), line.reached) == (text, reached)
    row = json.loads(as_json([line], MACHINE, "bench"))["results"][0]
    assert (row["goal"], row["reached"], row["ratio"]) == (text, reached, line.ratio)
    assert f"| {text} | {'yes' if reached else 'no'} |" in as_markdown([line], MACHINE, "bench")


def test_absolute_work_stands_beside_the_ratio() -> None:
    line = result(1.0, 2.0, Goal(), our_effort=Effort(234_881_024, 17 << 20), their_effort=Effort(999, 1))
    assert "| 235M in 17.0 MiB | 999 in 1 B |" in as_markdown([line], MACHINE, "bench")
    row = json.loads(as_json([line], MACHINE, "bench"))["results"][0]
    assert row["our_effort"] == {"multiply_adds": 234_881_024, "bytes": 17 << 20}
    assert json.loads(as_json([result(1.0, 2.0, Goal())], MACHINE, "bench"))["results"][0]["their_effort"] is None


def test_machine_tells_processor_and_vector_instructions() -> None:
    machine = describe_machine()
    assert machine["processor"] not in ("", platform.machine())
    assert machine["vector instructions"].split()[0] == torch.backends.cpu.get_cpu_capability()
