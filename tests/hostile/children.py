"""Commands in processes of their own, forked from one that has imported everything and computed nothing."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from expander_sae.cli.main import main

CPU_SECONDS = 60
"""Of its own that a command of the harness may take; all that end do so in a few, on any machine."""

MOST_MEMORY = 6 * 2**30
"""Bytes, so that a command which takes all that there is hurts itself alone."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Its exit status, or minus the number of the signal that ended it."""
    output: str
    errors: str

    @property
    def kind(self) -> str:
        """What this is in the table."""
        if self.status in (-signal.SIGXCPU, -signal.SIGALRM):
            return "hang"
        if "Traceback" in self.errors or "Error ignored" in self.errors or "Exception ignored" in self.errors:
            return "traceback"
        if self.status == 0:
            return "done"
        sentence = "expander: " in self.errors or "╭" in self.errors
        return "sentence" if sentence and 0 < self.status < 160 else "traceback"

    @property
    def said(self) -> str:
        """Everything that it printed to the error stream, and its status."""
        return f"{self.errors[-3000:]}\nstatus {self.status}"


class Child:
    """A process that does some work, its output in files."""

    def __init__(self, work: Callable[[], object], place: Path | None = None) -> None:
        """In the folder `place`, or where this process is."""
        self._streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115  closed where it is waited for
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # in the child, until the command has begun
        self.pid = os.fork()
        if self.pid == 0:
            self._live(work, place)
        signal.signal(signal.SIGINT, before)

    def _live(self, work: Callable[[], object], place: Path | None) -> None:
        status = 99
        try:
            for number, stream in enumerate(self._streams, start=1):
                os.dup2(stream.fileno(), number)
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
            if place is not None:
                os.chdir(place)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def kill(self, number: int) -> None:
        """Send it a signal, if it still lives."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self) -> bool:
        """Whether it has; without waiting, and without forgetting it."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, longest: float = 600.0) -> Ended:
        """How it ended; one that sleeps forever is ended here."""
        while not self.ended():
            if time.monotonic() - self.began > longest:
                self.kill(signal.SIGALRM)
                self.kill(signal.SIGKILL)
            time.sleep(0.002)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if time.monotonic() - self.began > longest:
            status = -signal.SIGALRM
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
            stream.close()
        return Ended(status, *texts)


def command(arguments: Sequence[str], place: Path | None = None, prepare: Callable[[], object] = lambda: None) -> Child:
    """A command of `expander` in a process of its own, begun; `prepare` makes that process's world harder first."""

    def work() -> None:
        prepare()
        main(list(arguments))

    return Child(work, place)


def limited(kind: int, most: int) -> Callable[[], object]:
    """What takes something from a process: memory, files, the size of a file."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Python's own start does the same
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))

    return prepare
