"""A certificate in words."""

from __future__ import annotations

import textwrap

from expander_sae.certificates.statements import STATUSES, Certificate, Status

HEADINGS: dict[Status, str] = {
    "proved": "PROVED",
    "refuted": "REFUTED, by a witness",
    "open": "OPEN: tried, and nothing is decided",
    "measured": "MEASURED, not proved",
    "not applicable": "DOES NOT APPLY",
}


def as_text(certificate: Certificate, width: int = 100) -> str:
    """Every statement under the heading of its status."""
    asked = ", ".join(map(str, certificate.k))
    parts = [f"{certificate.dictionary}; k = {asked}"]
    for status in STATUSES:
        statements = certificate.with_status(status)
        if statements:
            parts.append(f"\n{HEADINGS[status]}")
        for statement in statements:
            parts.append(f"  {statement.name}")
            parts.append(textwrap.fill(statement.sentence, width, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(parts)
