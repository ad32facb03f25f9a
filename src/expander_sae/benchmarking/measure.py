"""How long work takes, how much memory it takes, and on what machine.

Ratios survive a noisy machine: contestants take turns, the median of each one's turns counts.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from expander_sae.errors import ExpanderError


def interleaved(
    contestants: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The median seconds of every contestant, after one untimed round that compiles and warms up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(repeats + 1):
        for name, work in contestants.items():
            start = clock()
            work()
            elapsed = clock() - start
            if round_number > 0:
                times[name].append(elapsed)
    return {name: statistics.median(measured) for name, measured in times.items()}


def _status(field: str) -> int:
    """A size in bytes from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ExpanderError(f"This system does not report {field}, so peak memory cannot be measured.")


def peak_above_now(work: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rises above its present size while `work` runs.

    Linux only. What an earlier call freed but the allocator kept is not counted again, so measure in a fresh process.
    """
    refs = Path("/proc/self/clear_refs")
    if not refs.exists():
        raise ExpanderError("Peak memory is measured through /proc, which only Linux has.")
    refs.write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before)


_PACKAGES = ("expander-sae", "torch", "numba", "numpy", "scikit-learn", "eai-sparsify", "sae-lens", "triton")


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _processor() -> str:
    """The processor's name, and its family and model where a virtual machine's name says too little."""
    info = _cpuinfo()
    if "model name" not in info:
        return platform.processor() or platform.machine()
    parts = {"vendor_id": "vendor", "cpu family": "family", "model": "model"}
    numbers = [f"{short} {info[name]}" for name, short in parts.items() if name in info]
    return f"{info['model name']} ({', '.join(numbers)})"


def _vector_instructions() -> str:
    """The widest that torch uses, and all that the processor has."""
    info = _cpuinfo()
    flags = sorted({*info.get("flags", "").split(), *info.get("Features", "").split()})
    wide = [flag for flag in flags if flag.startswith(("avx", "amx", "asimd", "sve"))]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *([f"({' '.join(wide)})"] if wide else [])])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine() -> dict[str, str]:
    """Processor, threads, system and the versions of what took part."""
    described = {
        "processor": _processor(),
        "vector instructions": _vector_instructions(),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    described |= {name: found for name in _PACKAGES if (found := _version(name)) is not None}
    return described
