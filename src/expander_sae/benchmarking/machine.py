"""What the numbers were measured on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("expander-sae", "torch", "numba", "numpy", "scikit-learn", "eai-sparsify", "sae-lens", "triton")


def _processor() -> str:
    """The processor's own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine() -> dict[str, str]:
    """Processor, threads, system and the versions of what took part."""
    described = {
        "processor": _processor(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    described |= {name: found for name in _PACKAGES if (found := _version(name)) is not None}
    return described
