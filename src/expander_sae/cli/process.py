"""What a command does to its own process, and a library must not do to its user's."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import tempfile
from pathlib import Path

from expander_sae.means import DAYS

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's mallopt."""


def prepare_process() -> None:
    """Everything below; before torch is imported, or the first has no effect."""
    yield_idle_threads()
    keep_memory()
    write_any_name()
    end_within_a_day()
    find_room_for_compiled_code()


def find_room_for_compiled_code() -> None:
    """Keep compiled kernels among temporary files where neither the package nor the user's home may be written.

    Numba, which reads the variable when it is imported, would refuse to work at all.
    """
    places = (Path(__file__).parents[1], Path.home())
    if not any(os.access(place, os.W_OK) for place in places):
        user = os.getuid() if hasattr(os, "getuid") else ""
        os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"expander-sae-{user}"))


def end_within_a_day() -> None:
    """Refuse work that would take more than a day, unless the user has said how many it may take."""
    os.environ.setdefault(DAYS, "1")


def yield_idle_threads() -> None:
    """Let torch's idle threads give their core away, unless the user has said how they shall wait.

    By default they spin for milliseconds after every operation, on cores that compiled kernels and other programs want.
    OpenMP reads the variable once, when torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def keep_memory() -> None:
    """Let glibc reuse large blocks; by default each goes back to the system and comes again page by page.

    A language model on two cores ran 1.3 to 6 times as fast for it. The process keeps the most it ever needed until it
    ends, so this is for a command and not for a library. Without glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def write_any_name() -> None:
    """Write what the terminal's encoding does not have with backslashes, instead of ending the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
