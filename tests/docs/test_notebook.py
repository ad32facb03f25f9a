"""examples/quickstart.ipynb runs from the first cell to the last on the real model, with smaller numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
SMALLER = {"100_000": "1500", "4_000": "300", '"n": 4608': '"n": 96', '"k": 16': '"k": 4', "1024": "128"}
"""What stands in the notebook, and what is run."""


@pytest.mark.slow
def test_the_notebook_runs(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for large, small in SMALLER.items():
            cell.source = cell.source.replace(large, small)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert re.search(r"dense +FVU 0\.\d+ +recovered -?\d+\.\d+ +retention 1\.000", printed)
    assert "steered: " in printed


def test_what_it_shows_is_of_its_cells_and_of_no_machine() -> None:
    """It was run in order, whole, and no path or warning of the machine that ran it is in it."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.get("name") != "stderr" for cell in cells for output in cell.outputs)
    assert "site-packages" not in NOTEBOOK.read_text(encoding="utf-8")
