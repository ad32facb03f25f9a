"""Peak memory of `select` and of training a million features, each in a process of its own.

`python -m expander_sae.benchmarking.peak_memory select` prints one number, bytes above the inputs.
"""

from __future__ import annotations

import subprocess
import sys

import torch

from expander_sae.benchmarking.cases import Sizes, expander_step, random_dictionary
from expander_sae.benchmarking.measuring import peak_above_now
from expander_sae.benchmarking.results import Goal, Result
from expander_sae.errors import ExpanderError
from expander_sae.kernels import select

SELECT = Sizes(n=131072)
TRAIN = Sizes(n=1_048_576, d=16, tokens=4096)
_MEBIBYTE = 1 << 20


def _measure_select() -> int:
    dictionary, x = random_dictionary(SELECT), torch.randn(SELECT.tokens, SELECT.m)
    values, rows = dictionary.values.detach(), dictionary.rows
    select(x[:64], values[:64], rows[:64], SELECT.k)  # compiled code is not part of a call's memory
    return peak_above_now(lambda: select(x, values, rows, SELECT.k))


def _measure_training() -> int:
    warm_up = Sizes(m=64, n=128, d=4, k=4, tokens=64)
    expander_step(warm_up)(torch.randn(64, 64))
    x = torch.randn(TRAIN.tokens, TRAIN.m)

    def train() -> None:
        step = expander_step(TRAIN)
        for _ in range(3):
            step(x)

    return peak_above_now(train)


def _in_a_fresh_process(what: str) -> int:
    command = [sys.executable, "-m", "expander_sae.benchmarking.peak_memory", what]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise ExpanderError(f"Measuring the memory of {what} failed: {finished.stderr.strip().splitlines()[-1]}")
    return int(finished.stdout)


def peak_memory() -> list[Result]:
    """The two promises about memory; the alternative is what the same work holds when it is dense."""
    chosen, trained = _in_a_fresh_process("select"), _in_a_fresh_process("train")
    dense_scores = 4 * SELECT.tokens * SELECT.n
    dense_training = 4 * 4 * TRAIN.m * TRAIN.n  # values, gradient and two moments of Adam
    return [
        Result(f"peak memory above the inputs, select, {SELECT}", "the correlations alone, [tokens, n]", chosen,
               dense_scores, "bytes", Goal(most=64 * _MEBIBYTE)),
        Result(f"peak memory above the data, training, {TRAIN}", "dense values, gradient and Adam", trained,
               dense_training, "bytes", Goal(most=2048 * _MEBIBYTE)),
    ]  # fmt: skip


if __name__ == "__main__":
    print({"select": _measure_select, "train": _measure_training}[sys.argv[1]]())
