"""The errors a user can meet: each message is one sentence that says what is wrong and what is possible instead."""


class ExpanderError(ValueError):
    """A request that cannot be met; the command line prints its message without a traceback."""


class StorageError(ExpanderError):
    """An autoencoder that cannot be written, or a folder that does not hold one whole and unchanged."""
