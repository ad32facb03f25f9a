"""What can go wrong with a store."""

from __future__ import annotations

from expander_sae.errors import ExpanderError


class StoreError(ExpanderError):
    """A store that cannot be written, or a folder that does not hold a whole and unchanged one."""


class Float16Overflow(StoreError):
    """An activation too large for float16; the same tokens can be appended to a store in bfloat16."""
