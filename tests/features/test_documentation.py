"""The documentation of the tables is the schema's own."""

from __future__ import annotations

import re
from pathlib import Path

from expander_sae.features.schema import CONTEXTS, FEATURES

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def test_every_column_is_documented_in_the_words_of_the_file() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w<>]+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    columns = [*FEATURES.items(), *CONTEXTS.items()]
    assert rows == [(name, column.type, column.about) for name, column in columns]
