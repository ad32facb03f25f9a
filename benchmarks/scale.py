"""What a step costs per token and per feature here, and what `docs/scale.md` makes of it for many machines.

`python -m benchmarks.scale` measures for a few minutes, on a GPU if there is one and on one core of a CPU if not, and
writes the constants to benchmarks/results/scale-cpu.json (or scale-gpu.json). `python -m benchmarks.scale FILE` prints
the table that follows from the constants in a file, of its largest number of columns.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from expander_sae.benchmarking.measure import describe_machine
from expander_sae.distribution import Group
from expander_sae.kernels import select
from expander_sae.training import Sample, TrainConfig, Trainee, new_autoencoder

M, D, K = 2048, 7, 32
RESULTS = Path(__file__).parent / "results"
NETWORK = 40e9
"""Bytes a second that a process receives, of 400 Gbit/s."""
ROOM = 64e9
"""Bytes of a GPU of 80 GB that columns may take."""
LOOKS = 2
"""Products with all columns per token in the model: the codes, and the dead features' while most are dead."""


@dataclass(frozen=True)
class Constants:
    """What was measured of one process."""

    machine: str
    features: int
    """Columns that it held meanwhile."""
    select: float
    """Multiply-adds a second of `select`."""
    token: float
    """Seconds of a training step per token and column, without the loss of the dead features."""
    feature: float
    """Seconds of a training step per column, whatever the batch: Adam, gradients, who fired."""
    bytes: float
    """Most memory per column, without that of the data."""


def clock(device: torch.device) -> float:
    """Seconds of this device: of one core, which others may be using too, those it worked for us."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def most_memory(gpu: bool) -> int:
    """Bytes that there were at most; of a GPU, from the last call on."""
    if not gpu:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The shortest time of a call, after one that compiles."""
    work()
    times = []
    for _ in range(repeats):
        began = clock(device)
        work()
        times.append(clock(device) - began)
    return min(times)


def trainee_of(n: int, device: torch.device) -> Trainee:
    """One process's columns in training."""
    config = TrainConfig(n=n, d=D, k=K, construction="uniform", coder="topk", tokens=1 << 40, dead_after=1 << 40)
    x = torch.randn(4096, M, generator=torch.Generator().manual_seed(0))
    x = x.to(device)
    sample = Sample(x.mean(dim=0).double(), 1.0, x.std(dim=0), x)
    return Trainee(config, new_autoencoder(config, sample), sample, Group())


def measured(n: int, device: torch.device, batches: tuple[int, int], repeats: int) -> Constants:
    """The constants of a process that holds n columns, from steps of two sizes."""
    gpu = device.type == "cuda"
    data = [torch.randn(tokens, M, device=device) for tokens in batches]
    before = torch.cuda.memory_allocated() if gpu else most_memory(gpu)
    trainee = trainee_of(n, device)
    values, rows = trainee.sae.dictionary.get_parameter("values").detach(), trainee.sae.dictionary.get_buffer("rows")
    alone = seconds(lambda: select(data[1], values, rows, K), device, repeats)
    small, large = (seconds(lambda x=x: trainee.step(x), device, repeats) for x in data)  # type: ignore[misc]
    token = (large - small) / (batches[1] - batches[0]) / n
    trainee.record.silent_for.fill_(1 << 41)  # as if nothing had ever fired, which takes most memory
    trainee.step(data[0])
    memory = (most_memory(gpu) - before) / n
    name = torch.cuda.get_device_name() if gpu else f"one core of {describe_machine()['processor']}"
    fixed = max(0.0, small / n - batches[0] * token)
    return Constants(name, n, batches[1] * n * D / alone, token, fixed, memory)


@dataclass(frozen=True)
class Plan:
    """A run of `gpus` processes, `shards` of them to a dictionary of n columns, each reading `tokens` a step."""

    n: int
    gpus: int
    shards: int
    tokens: int

    @property
    def held(self) -> float:
        """Columns of a process."""
        return self.n / self.shards

    @property
    def data(self) -> int:
        """Processes that share the batches."""
        return self.gpus // self.shards

    @property
    def gathered(self) -> float:
        """Bytes that a process receives per token: of every other shard k candidates (float32, int32), and k/2 dead."""
        return (self.shards - 1) * 8 * (K + K // 2)

    @property
    def summed(self) -> float:
        """Bytes that it receives per token for the sum of the parts, by a ring, at each look."""
        return LOOKS * 2 * (1 - 1 / self.shards) * 4 * M

    @property
    def gradients(self) -> float:
        """Bytes that it receives per step for the gradients of its columns and their biases, by a ring."""
        return 2 * (1 - 1 / self.data) * 4 * (D + 1) * self.held

    def parts(self, constants: Constants, network: float) -> tuple[float, float, float, float]:
        """Seconds of a step: per token, per column, for the other shards, for the gradients; no two at once."""
        return (
            LOOKS * self.tokens * self.held * constants.token,
            self.held * constants.feature,
            self.tokens * (self.gathered + self.summed) / network,
            self.gradients / network,
        )

    def speed(self, constants: Constants, network: float) -> float:
        """Tokens a second of the whole run."""
        return self.data * self.tokens / sum(self.parts(constants, network))


def planned(constants: Constants, network: float, room: float) -> list[str]:
    """The table of `docs/scale.md`: 8 shards, or as many as it takes for a process to need so many bytes at most."""
    lines = [
        "| n | GPUs | shards | GB a process | tokens a step and process | product | columns | shards' traffic |"
        " gradients | tokens/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for n in (1 << 24, 1 << 26, 1 << 28, 1 << 30):
        for gpus in (8, 64, 512, 1024):
            shards = 8
            while shards < gpus and n / shards * constants.bytes > room:
                shards *= 2
            plan = Plan(n, gpus, shards, 8192)
            memory = plan.held * constants.bytes / 1e9
            fits = f"{memory:.1f}" if memory * 1e9 <= room else f"**{memory:.0f}**"
            parts = " | ".join(f"{1e3 * part:,.0f} ms" for part in plan.parts(constants, network))
            speed = plan.speed(constants, network)
            lines.append(f"| 2^{n.bit_length() - 1} | {gpus} | {shards} | {fits} | 8,192 | {parts} | {speed:,.0f} |")
    return lines


def main() -> None:
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    if not gpu:
        torch.set_num_threads(1)
    sizes = [1 << 20, 1 << 22, 1 << 24] if gpu else [1 << 18, 1 << 20]
    batches, repeats = ((2048, 8192), 5) if gpu else ((64, 512), 2)
    found = [measured(n, device, batches, repeats) for n in sizes]
    for each in found:
        print(json.dumps(dataclasses.asdict(each)))
    path = RESULTS / f"scale-{'gpu' if gpu else 'cpu'}.json"
    path.write_text(json.dumps([dataclasses.asdict(each) for each in found], indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        constants = Constants(**json.loads(Path(sys.argv[1]).read_text())[-1])
        print("\n".join(planned(constants, NETWORK, ROOM)))
    else:
        main()
