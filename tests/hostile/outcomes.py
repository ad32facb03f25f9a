"""What came of every try, and the table of them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field

KINDS = ("done", "sentence", "traceback", "hang", "difference")
"""It worked; it was refused by a sentence; it ended in any other way; it did not end; its result was silently wrong."""
WRONG = KINDS[2:]


@dataclass
class Table:
    """Counts by group of tries, and what must not have happened."""

    deadline: float = float("inf")
    """When to stop trying, as `time.monotonic` tells it."""
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() > self.deadline

    def add(self, group: str, kind: str, what: str = "", said: str = "") -> None:
        """One more try; what was tried and what was said are kept where it went wrong."""
        assert kind in KINDS, kind
        self.counts.setdefault(group, Counter())[kind] += 1
        if kind in WRONG:
            self.wrong.append(f"{group}: {kind}: {what}\n    " + "\n    ".join(said.strip().splitlines()[-12:]))
            print(self.wrong[-1], file=sys.stderr, flush=True)

    def __str__(self) -> str:
        heading = (
            f"{'':28}{'tries':>8}{'done':>8}{'sentences':>11}{'tracebacks':>12}{'hangs':>7}{'silent differences':>20}"
        )
        widths = (8, 11, 12, 7, 20)
        rows = dict(self.counts)
        rows["all"] = sum(self.counts.values(), Counter())
        lines = [heading]
        for group, counts in rows.items():
            numbers = "".join(f"{counts[kind]:>{width}}" for kind, width in zip(KINDS, widths, strict=True))
            lines.append(f"{group:28}{counts.total():>8}{numbers}")
        return "\n".join(lines)
