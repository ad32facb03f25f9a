"""One document, and which part of the text it belongs to."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

Part = Literal["train", "held-out", "all"]

HELD_OUT_ONE_IN = 20
"""Every twentieth document is held out, chosen by its text alone, so a source may grow or change its order."""


@dataclass(frozen=True)
class Document:
    """A text and where it came from."""

    text: str
    source_id: str
    """The place inside the source: a file and line, a row, or the name of what a docstring describes."""


def fingerprint(text: str) -> bytes:
    """Equal for texts that differ only in letter case, punctuation or white space; 32 bytes."""
    return hashlib.sha256("".join(re.findall(r"\w+", text.casefold())).encode(errors="surrogatepass")).digest()


def in_part(text: str, part: Part) -> bool:
    """Whether a document with this text belongs to the part."""
    if part == "all":
        return True
    held_out = int.from_bytes(fingerprint(text)[:8], "big") % HELD_OUT_ONE_IN == 0
    return held_out == (part == "held-out")
