"""Where converted models are kept between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from expander_sae.errors import ExpanderError


def cache_folder() -> Path:
    """EXPANDER_CACHE if that is set, otherwise `expander-sae` in the user's cache folder; it need not exist yet."""
    chosen = os.environ.get("EXPANDER_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return _user_cache() / "expander-sae"


def _user_cache() -> Path:
    """The folder where this platform wants programs to keep what they can make again."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else _home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches"
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative path is to be ignored.
    return Path(chosen) if os.path.isabs(chosen) else _home() / ".cache"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise ExpanderError("This user has no home folder; set EXPANDER_CACHE to a folder for models.") from error
