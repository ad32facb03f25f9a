"""On a CUDA device: is `select` right on the hardware, and how does it compare with dense bf16 matmul and topk?

`python -m benchmarks.gpu` writes benchmarks/results/gpu.json and gpu.md. It needs a GPU and nothing else does.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from expander_sae import OMP, ExpanderDictionary, Support
from expander_sae.benchmarking.measure import describe_machine
from expander_sae.benchmarking.results import Goal, Result, as_json, as_markdown, as_table
from expander_sae.console import terminal
from expander_sae.kernels import select

CASES = ((2048, 16384, 7, 32), (2048, 131072, 7, 32), (4096, 1048576, 16, 64))
TOKENS = 4096
REPEATS = 20
RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], object]) -> float:
    """The median time of a call, by device events, after a warm-up."""
    for _ in range(3):
        work()
    times = []
    for _ in range(REPEATS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(times)


def dense_seconds(x: torch.Tensor, m: int, n: int, k: int) -> float:
    """Dense bf16 matmul, relu and topk, the batch cut up where [tokens, n] would not fit beside the matrix."""
    matrix = torch.randn(m, n, device="cuda", dtype=torch.bfloat16)
    piece = min(TOKENS, max(1, (8 << 30) // (2 * n)))

    def encode() -> None:
        for start in range(0, TOKENS, piece):
            (x[start : start + piece] @ matrix).relu_().topk(k)

    return seconds(encode)


@torch.no_grad()
def measure(m: int, n: int, d: int, k: int) -> Result:
    """Correctness against the definition on a few tokens, to the last bit, then the ratio on all of them."""
    dictionary = ExpanderDictionary(Support.make("uniform", m=m, n=n, d=d, seed=0), torch.randn(n, d) / d**0.5).cuda()
    x = torch.randn(TOKENS, m, device="cuda", dtype=torch.bfloat16)
    found = select(x[:64], dictionary.values, dictionary.rows, k)
    expected = select(x[:64], dictionary.values, dictionary.rows, k, implementation="reference")
    exact = torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    values = dictionary.values.bfloat16()
    ours = seconds(lambda: select(x, values, dictionary.rows, k))
    theirs = dense_seconds(x, m, n, k)
    work = f"select, m={m} n={n} d={d} k={k}, {TOKENS} tokens, bf16"
    note = "equal to the definition to the last bit" if exact else "NOT equal to the definition"
    return Result(work, "dense bf16: matmul, relu, topk", ours, theirs, "s", Goal(1), note=note, is_right=exact)


@torch.no_grad()
def measure_pursuit(m: int, n: int, d: int, k: int) -> Result:
    """Orthogonal matching pursuit with local updates against one dense encode of the same tokens."""
    dictionary = ExpanderDictionary(Support.make("uniform", m=m, n=n, d=d, seed=0), torch.randn(n, d) / d**0.5).cuda()
    x = torch.randn(TOKENS, m, device="cuda")
    ours, theirs = seconds(lambda: OMP(k)(dictionary, x)), dense_seconds(x.bfloat16(), m, n, k)
    return Result(
        f"OMP, m={m} n={n} d={d} k={k}, {TOKENS} tokens, fp32",
        "one dense bf16 encode",
        ours,
        theirs,
        "s",
        Goal(),
    )


def main() -> None:
    """Measure every case, print and write the table."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu measures on a CUDA device, and torch sees none here.")
    results = [measure(*case) for case in CASES] + [measure_pursuit(*CASES[0])]
    machine, command = describe_machine(), "python -m benchmarks.gpu"
    terminal().print(as_table(results, machine))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(as_json(results, machine, command))
    (RESULTS / "gpu.md").write_text("# Ratios on a GPU\n\n" + as_markdown(results, machine, command))


if __name__ == "__main__":
    main()
