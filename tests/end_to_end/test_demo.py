"""The demo as a user runs it, on the real model, with settings so small that its numbers mean nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from expander_sae.activations.store import Store

TINY = [
    "--harvest-tokens", "2000", "--train-tokens", "1024", "--batch", "256", "--evaluation-tokens", "300",
    "--n", "256", "--features", "3", "--contexts", "2",
]  # fmt: skip


def demo(out: Path) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "expander_sae", "demo", "--out", str(out), *TINY]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_from_the_model_to_the_report_and_again(smollm2: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    printed = demo(out)
    for name in ("expander d=7", "expander d=2", "dense", "dense n=16"):
        assert name in printed
    assert str(out / "report.html") in printed
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "expander d=2" in page
    assert Store.open(out / "acts").tokens == 2000
    dense = "dense-n256-topk16"
    loss = json.loads((out / "evaluations" / f"{dense}.json").read_text())[dense]["language_model"]
    assert loss["retention_mean"]["value"] == 1
    assert loss["clean"]["value"] < loss["mean"]["value"]

    spent = json.loads((out / "seconds.json").read_text())
    again = demo(out)
    assert again.count("found ") == 3
    for stage in ("harvest", "train", "evaluate"):  # nothing was added, so nothing was done again
        assert json.loads((out / "seconds.json").read_text())[stage] == spent[stage]
    assert table(again) == table(printed)


def table(printed: str) -> list[str]:
    """The rows of the table."""
    rows = [line for line in printed.splitlines() if re.match(r"\W*(expander d=|dense)", line)]
    assert len(rows) >= 4
    return rows
