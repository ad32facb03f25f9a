"""What a machine has: memory, and time; work that is beyond them is refused before it begins, with the estimate.

Estimates are from below: what is refused here could not be done, what passes may still turn out to be too much.
"""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    import torch

DAYS = "EXPANDER_DAYS"
"""The environment variable that says how many days a piece of work may take; without it, any number. Commands set it
to 1 unless the user has set it."""
PER_CORE, PER_GPU = 1e11, 1e15
"""Multiply-adds a second that no core and no GPU exceeds."""
_LITTLE = 2**26
_MEASURED = 20.0
"""Seconds after which the speed of work under way is believed."""
_UPDATES = 10
"""And reports of progress that there must have been in them."""


def device_named(device: torch.device | str | None) -> torch.device:
    """The device itself, after something could be computed there; by default the GPU if there is one."""
    import torch

    if device is None:
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.zeros(1, device=device)
        found.item()  # which the device of shapes without content cannot
        return found.device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:  # whatever it was built without
        raise ExpanderError(f"The device {str(device)!r} is not available on this machine; try 'cpu'.") from error


def memory_there(device: str = "cpu") -> int | None:
    """Bytes that this process can still get; None if the system does not say."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if not sys.platform.startswith("linux"):
        return None
    found = [_available(), *_left_of_control_group(), *_left_of_address_space()]
    return min((each for each in found if each is not None), default=None)


def check_memory(what: str, needed: float, device: str = "cpu", instead: str = "ask for less") -> None:
    """Refuse what needs more bytes than there are; little is not looked at, since that is asked for often."""
    if needed < _LITTLE:
        return
    there = memory_there(device)
    if there is not None and needed > there:
        raise ExpanderError(
            f"{what} needs at least {decimal(int(needed))} of memory, and there are {decimal(there)}; {instead}."
        )


def check_time(what: str, multiply_adds: float, device: str = "cpu", instead: str = "ask for less") -> None:
    """Refuse what could not be done in the days that it may take, however fast this machine is."""
    speed = PER_GPU if device.startswith("cuda") else PER_CORE * (os.cpu_count() or 1)
    _check_seconds(what, multiply_adds / speed, instead)


_NO_MEMORY = (
    "can't allocate memory|out of memory|bad_alloc|not enough memory|size calculation overflowed"  # torch and C++
    "|can't start new thread"  # Python, which finds no room for its stack
    "|cannot allocate memory|cannot map zero-fill pages|failed to map segment from shared object$"  # a library's loader
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what Python, numpy, torch, C++ or the loading of a library raise when memory cannot be had."""
    said = isinstance(error, RuntimeError | ImportError) and re.search(_NO_MEMORY, str(error), re.IGNORECASE)
    return isinstance(error, MemoryError) or bool(said)


class Patience:
    """Watches work under way, and refuses to go on once its speed says that it would take too many days."""

    def __init__(self) -> None:
        self._began, self._done_before, self._updates, self._decided = 0.0, 0.0, -1, False

    def check(self, what: str, done: float, total: float) -> None:
        """To be called after every piece; the first is not counted, since much is compiled and read before it."""
        if self._decided:
            return
        self._updates += 1
        if self._updates == 1:
            self._began, self._done_before = time.monotonic(), done
        elapsed = time.monotonic() - self._began
        if self._updates >= _UPDATES and elapsed > _MEASURED and done > self._done_before:
            self._decided = True
            left = elapsed * (total - done) / (done - self._done_before)
            _check_seconds(what, left, "ask for less")


def _check_seconds(what: str, seconds: float, instead: str) -> None:
    try:
        days = float(os.environ[DAYS])
    except (KeyError, ValueError):
        return
    if seconds > days * 86_400:
        took = f"{seconds / 86_400:,.0f} days" if seconds < 1e10 else f"{seconds / 31_557_600:,.0f} years"
        raise ExpanderError(f"{what} would take at least {took} on this machine; {instead}, or let it with {DAYS}=N.")


def _available() -> int | None:
    """What the whole machine has to spare."""
    with suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        return None if found is None else int(found[1]) * 1024
    return None


def _left_of_control_group() -> list[int]:
    """What a container lets its processes have beside what they have."""
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, now = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        return [] if most == "max" else [int(most) - now + (int(cached[1]) if cached else 0)]
    return []


def _left_of_address_space() -> list[int]:
    """What `ulimit -v` lets this process have beside what it has."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return []
    with suppress(OSError, ValueError):
        return [most - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()]
    return []
