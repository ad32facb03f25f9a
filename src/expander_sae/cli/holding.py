"""One process at a time: what a command writes is held by it until it ends, however it ends."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from expander_sae.errors import ExpanderError

if sys.platform != "win32":
    import fcntl

_held: dict[str, int] = {}
"""Descriptors of the files whose locks this process has, by what they stand for."""


def hold(path: Path) -> None:
    """Refuse a place that another process on this machine writes to, and keep others away from it.

    The lock is on a file beside other temporary ones, since a folder that is refused later must not be made before. Of
    the processes of torchrun, which write together, the first one has it.
    """
    name = os.path.realpath(path)
    if sys.platform == "win32" or name in _held or os.environ.get("RANK", "0") != "0":
        return
    folder = Path(tempfile.gettempdir()) / f"expander-sae-locks-{os.getuid()}"
    with suppress(OSError):  # without a place for temporary files it is up to the user
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / hashlib.sha256(os.fsencode(name)).hexdigest()[:32], os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            _held[name] = descriptor
            return
        raise ExpanderError(
            f"{path} is being written by another process; wait for it, stop it, or choose another place."
        )


def release() -> None:
    """Let others write; the system does the same when a process dies."""
    while _held:
        os.close(_held.popitem()[1])
