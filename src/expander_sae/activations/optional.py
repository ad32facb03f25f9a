"""Packages that only some of the work needs: named when they are missing, silenced where they chatter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from expander_sae.errors import ExpanderError


def require(*packages: str, extra: str = "lm") -> None:
    """Refuse, with the command that helps, if one of these importable packages is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        raise ExpanderError(f"This needs {names}, which is not installed: pip install 'expander-sae[{extra}]'.")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings from transformers inside; both are as before afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
