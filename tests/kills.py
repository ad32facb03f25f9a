"""Ending a process at a chosen moment of its writing: at any line of some modules, or inside a file."""

import builtins
import io
import itertools
import os
import sys

from expander_sae import files

KILLED = 9


def in_child(work):
    """Run the work in a forked process; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at_line(step, modules):
    """Let this process end at the step-th line that runs in one of the modules."""
    lines = itertools.count()
    traced = {module.__file__ for module in modules}

    def trace(frame, event, _):
        if frame.f_code.co_filename not in traced:
            return None
        if event == "line" and next(lines) == step:
            os._exit(KILLED)
        return trace

    sys.settrace(trace)


class PartialFile(io.FileIO):
    """A file whose first write ends the process part of the way."""

    def __init__(self, path, share):
        super().__init__(path, "w")
        self.share = share

    def write(self, data):
        super().write(data[: int(len(data) * self.share)])
        os._exit(KILLED)


def die_while_writing(file_number, share):
    """Let this process end when it has written a share of its file of this number."""
    numbers = itertools.count()

    def opened(path, mode):
        return PartialFile(path, share) if next(numbers) == file_number else builtins.open(path, mode)

    files.open = opened
