"""The house stands: imports run downwards only and in no circles, files and functions are short."""

from __future__ import annotations

import ast
import runpy
import tomllib
from pathlib import Path

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "src").rglob("*.py"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 60


@pytest.mark.parametrize("contract", [contract["id"] for contract in CONTRACTS])
def test_imports_run_downwards_only_and_in_no_circles(contract: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is broken, by file and line, is in the message; the contracts are in pyproject.toml."""
    status = lint_imports(str(ROOT / "pyproject.toml"), (contract,), no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_no_file_is_in_a_circle_with_the_folder_that_it_is_in() -> None:
    """Of these the contract does not know, which looks at what stands side by side."""
    graph = grimp.build_graph("expander_sae", cache_dir=None)
    circles = [
        f"{file} imports {folder} in line {detail['line_number']}, which imports it"
        for file in sorted(graph.modules)
        for folder in graph.find_modules_directly_imported_by(file)
        if file.startswith(f"{folder}.") and graph.chain_exists(importer=folder, imported=file)
        for detail in graph.get_import_details(importer=file, imported=folder)
    ]
    assert not circles


def test_no_file_is_too_long_to_read_in_one_sitting() -> None:
    lengths = {file.relative_to(ROOT): len(file.read_text().splitlines()) for file in FILES}
    assert not {str(file): lines for file, lines in lengths.items() if lines > LINES_OF_A_FILE}


def test_no_function_is_too_long_to_see_at_once() -> None:
    too_long = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_OF_A_FUNCTION:
                    too_long.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert not too_long


def test_the_picture_in_the_documentation_is_drawn_from_the_imports() -> None:
    """After a change of the rooms: python docs/draw_architecture.py."""
    script = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))
    document = (ROOT / "docs" / "architecture.md").read_text()
    assert script["drawn_into"](document, script["picture"]()) == document
