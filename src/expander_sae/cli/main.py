"""`expander`: the one place where a command starts and ends, and where an error becomes a sentence."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import NoReturn

from expander_sae.cli.commands import NAMES, overview, run
from expander_sae.cli.holding import release
from expander_sae.cli.process import prepare_process
from expander_sae.errors import ExpanderError, StoppedError
from expander_sae.means import is_out_of_memory
from expander_sae.version import __version__

FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
"""Exit statuses: a sentence was printed; the command line is wrong; after Ctrl-C; whoever read the output has gone."""
BY_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; every failure that a user can cause is one sentence and an exit status."""
    _open_closed_streams()
    try:
        try:
            _call(sys.argv[1:] if arguments is None else list(arguments))
        finally:
            release()
            sys.stdout.flush()  # here, where a closed pipe is understood
    except KeyboardInterrupt:
        _end_interrupted()
    except BrokenPipeError:
        _drop_output()
        sys.exit(PIPE_CLOSED)
    except StoppedError as error:
        _end(BY_SIGNAL + error.signal, str(error))
    except ExpanderError as error:
        _end(FAILED, str(error))
    except OSError as error:
        _drop_output()  # which may be what cannot be written
        _end(FAILED, f"{error.strerror}: {error.filename}." if error.filename else f"{error}.")
    except (MemoryError, RuntimeError, ImportError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # so Python 3.11 tells of one while a class is made
            _end_interrupted()
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        _end(FAILED, f"There is not enough memory for this{f' ({reason})' if reason else ''}; ask for less of it.")


def _end_interrupted() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows is short
    _end(INTERRUPTED, "Interrupted.")


def _open_closed_streams() -> None:
    """Write to nowhere instead of to a stream that was closed before the command began."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  as long as the process lives


def _drop_output() -> None:
    """Let nothing more be written, not even what Python still holds when it ends."""
    with suppress(OSError, ValueError):  # a test's output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _call(arguments: list[str]) -> None:
    """Say what there is, or do what the first argument names."""
    name, *rest = arguments or [""]
    if name in ("", "-h", "--help"):
        print(overview())
        sys.exit(0 if arguments else MISUSED)
    elif name == "--version":
        print(f"expander-sae {__version__}")
    elif name in NAMES:
        prepare_process()
        run(name, rest)
    else:
        close = get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        _end(MISUSED, f"There is no command {name!r}; {hint}`expander --help` lists them all.")


def _end(status: int, sentence: str) -> NoReturn:
    print(f"expander: {sentence}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
