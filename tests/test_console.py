"""What is printed is what was said, also where it looks like rich's markup."""

from __future__ import annotations

import pytest
from rich.table import Table

from expander_sae.console import Announcer, LiveLines, terminal, waiting

NAME = "[/x] [bold]b[/bold] :smile:"


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(NAME, title=NAME)
    table.add_row(NAME)
    terminal().print(table, NAME)
    with Announcer(terminal()) as announcer:
        announcer.begins(NAME, NAME, 10)
        announcer.proceeds(5)
        announcer.ends(NAME, 2.0)
    assert capsys.readouterr().out.count(NAME) == 7  # the widths of a table do not break it


def test_live_lines_say_what_is_under_way_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveLines("tokens", kept=True) as lines, waiting(NAME) as tell:
        tell(NAME)
        lines.update(NAME, 10, 40, note="FVU 0.5")
        lines.update("[/y]", 40, 40)
    printed = capsys.readouterr()
    assert not printed.out
    for part in (NAME, "25 %", "FVU 0.5", "[/y]", "100 %"):
        assert part in printed.err


def test_nothing_is_said_where_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveLines(shown=False) as lines, waiting(NAME, shown=False) as tell:
        tell(NAME)
        lines.update(NAME, 1, 2)
    terminal(quiet=True).print(NAME)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
