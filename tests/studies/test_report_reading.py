"""Reports read back, and bound into one page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from expander_sae.experiments.controls_rows import Row
from expander_sae.experiments.report_files import Report
from expander_sae.experiments.report_reading import EXPERIMENTS, read_chapters

from expander_sae.cli.main import main
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import Estimate
from expander_sae.reporting.charts import Axis, Point, point_chart
from expander_sae.reporting.tables import Cell, Table
from tests.pages import Reader

ONE = Estimate(0.5, 0.4, 0.6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a finished experiment that is called controls."""
    written = tmp_path / "one"
    written.mkdir()
    (written / "config.json").write_text('{"d": 4}')
    report = Report(
        name="controls",
        title="Where values are",
        findings=["Lines are < others & cheaper.", "Nothing dies."],
        tables={"All": Table([Cell("support"), Cell("FVU")], [[Cell("lines"), Cell("0.500", terse="±0.100")]])},
        notes=["Means over seeds."],
        pictures={"fvu": point_chart([Point("lines", 1, 0.5)], Axis("d"), Axis("FVU"))},
        facts={"settings": {"d": 4, "seeds": [0, 1], "n": None}, "seconds": {"train": 3}},
        rows=[Row("lines", 4, "topk", ONE, ONE, ONE, 1, [0.9, 0.1], ONE)],
        further={"Overlaps": Table([Cell("support"), Cell("0")], [[Cell("lines"), Cell("90%")]])},
    )
    report.write(written)
    return written


def test_a_report_is_read_back_as_it_was_written(folder: Path) -> None:
    (chapter,) = read_chapters(folder)
    assert (chapter.name, chapter.title) == ("controls", "Where values are")
    assert chapter.findings == ["Lines are < others & cheaper.", "Nothing dies."]
    assert chapter.notes == ["Means over seeds."]
    assert [[cell.text for cell in row] for row in chapter.tables["All"].rows] == [["lines", "0.500 ±0.100"]]
    assert [cell.text for cell in chapter.tables["All"].headings] == ["support", "FVU"]
    assert list(chapter.tables) == ["All"]
    assert list(chapter.further) == ["Overlaps"]
    assert chapter.pictures == {"controls_fvu": (folder / "controls_fvu.svg").read_text()}
    assert chapter.facts[:4] == [("d", "4"), ("seeds", "0, 1"), ("n", "–"), ("seconds", "train 3")]


def test_the_page_holds_all_of_them_and_needs_nothing_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = shutil.copytree(folder, tmp_path / "again")
    out = tmp_path / "deep" / "page.html"
    main(["report", str(folder), str(again), "--out", str(out), "--title", "Ours & theirs"])
    assert "2 reports are in" in capsys.readouterr().out
    page = Reader(out.read_text(encoding="utf-8"))
    said = " ".join(page.texts)
    assert "Ours & theirs" in said
    for words in ("Lines are < others & cheaper.", "0.500 ±0.100", "Means over seeds.", "Overlaps", "train 3"):
        assert said.count(words) == 2
    assert len(set(page.ids)) == len(page.ids)
    assert all(each.startswith("#") and each[1:] in page.ids for each in page.references)
    assert not re.search(r"@import|url\((?!#)", out.read_text(encoding="utf-8"))
    assert out.read_text(encoding="utf-8").count("<svg") == 2
    assert str(tmp_path) not in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["controls.md", "controls_fvu.svg"])
def test_a_report_that_lacks_a_file_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ExpanderError, match=rf"is not finished, {missing} is missing; run its experiment again"):
        read_chapters(folder)


def test_folders_without_a_report_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpanderError, match="There is no folder"):
        read_chapters(tmp_path / "nowhere")
    with pytest.raises(ExpanderError, match="is not the folder of an experiment; give one that expander frontier"):
        read_chapters(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": "expander-sae"}))
    with pytest.raises(ExpanderError, match="is not the folder of an experiment"):
        read_chapters(tmp_path)
    (folder / "controls.json").unlink()
    with pytest.raises(ExpanderError, match="is not finished; run it again with the same --out"):
        read_chapters(folder)


def test_damaged_reports_are_refused(folder: Path) -> None:
    (folder / "controls.md").write_text("# Where values are\n")
    with pytest.raises(ExpanderError, match=r"controls.md was edited or damaged; run its experiment again"):
        read_chapters(folder)


def test_numbers_that_were_damaged_are_refused(folder: Path) -> None:
    (folder / "controls.json").write_text("[")
    with pytest.raises(ExpanderError, match=r"controls.json was edited or damaged"):
        read_chapters(folder)


def test_nothing_to_bind_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report"])
    assert "give at least one folder of a finished experiment" in capsys.readouterr().err


def test_make_runs_every_experiment_and_binds_them_all() -> None:
    lines = (Path(__file__).parents[2] / "Makefile").read_text().splitlines()
    commands = [line.split("expander ", 1)[1].split() for line in lines if "(BIN)/expander " in line]
    assert {command[0] for command in commands} == {"demo", "report", *EXPERIMENTS}
    (bound,) = [" ".join(command) for command in commands if command[0] == "report"]
    assert f"$(addprefix $(RUNS)/,{' '.join(EXPERIMENTS)})" in bound
