"""Packages that only the work with language models needs: asked for when they are used, named when they are missing."""

from __future__ import annotations

from importlib.util import find_spec

from expander_sae.errors import ExpanderError


def require(*packages: str) -> None:
    """Refuse, with the command that helps, if one of these importable packages is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        raise ExpanderError(f"This needs {names}, which is not installed: pip install 'expander-sae[lm]'.")
