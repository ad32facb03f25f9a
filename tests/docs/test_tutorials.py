"""The tutorials do what they say: every block of look.md and steer.md is run, in order, with smaller numbers."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from expander_sae import server
from expander_sae.cli.main import main
from tests.docs.blocks import Block, blocks

SMALLER = {"600000": "1500", "500000": "1000", "20_000": "300", "4608": "96", "--k 16": "--k 4",
           "expander train": "expander train --no-progress --tokens 1024 --batch 128"}  # fmt: skip
"""What stands in the tutorials, and what is run: fewer tokens, fewer features."""


def smaller(block: Block) -> Block:
    """The block with smaller numbers."""
    text = block.text
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return dataclasses.replace(block, text=text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["look.md", "steer.md"])
def test_a_tutorial_runs(name: str, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`expander view` gets as far as serving, which would not end."""
    served = list[Any]()
    monkeypatch.setattr(server, "serve", lambda live, folder, **_: served.append(live))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in map(smaller, blocks(f"docs/{name}")):
        if block.language:
            exec(compile(block.text, name, "exec"), names)
            continue
        for command in block.commands:
            program, *arguments = shlex.split(command, comments=True)
            assert program == "expander"
            main(arguments)
    assert len(served) == (name == "look.md")
