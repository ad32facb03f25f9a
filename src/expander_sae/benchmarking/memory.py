"""Peak memory of this process, from the kernel's own books."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from expander_sae.errors import ExpanderError


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
