"""The errors a user can meet: each message is one sentence that says what is wrong and what is possible instead."""

from importlib.util import find_spec


class ExpanderError(ValueError):
    """A request that cannot be met; the command line prints its message without a traceback."""


class StoppedError(ExpanderError):
    """The work was asked to stop by a signal, and did so after what it had was saved."""

    def __init__(self, sentence: str, signal: int) -> None:
        super().__init__(sentence)
        self.signal = signal
        """The number of the signal."""


class StorageError(ExpanderError):
    """What a file cannot hold, or an autoencoder's folder that does not hold one whole and unchanged."""


def require(*packages: str, extra: str = "lm") -> None:
    """Refuse, with the command that helps, if one of these importable packages is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        raise ExpanderError(f"This needs {names}, which is not installed: pip install 'expander-sae[{extra}]'.")
