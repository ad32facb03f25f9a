"""Reports: written, read back as they were, and bound into one page."""

from __future__ import annotations

import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from expander_sae.cli.main import main
from expander_sae.cli.study import STUDIES
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import Interval, Kind
from expander_sae.files import write_checked
from expander_sae.reporting.charts import Axis, Point, point_chart
from expander_sae.reporting.report import Report
from expander_sae.reporting.tables import Cell, Table
from expander_sae.studies.study import SETTINGS, read_reports
from tests.pages import Reader

NAMES = [*STUDIES, "demo"]
ONE = Interval(0.5, 0.4, 0.6, Kind.HULL)


@pytest.fixture
def report() -> Report:
    return Report(
        name="supports",
        title="Where values are",
        findings=["Lines are < others & cheaper.", "Nothing dies."],
        tables={"All": Table([Cell("support"), Cell("FVU")], [[Cell("lines"), Cell("0.500", terse="±0.100")]])},
        notes=["Means over seeds."],
        pictures={"fvu": point_chart([Point("lines", 1, 0.5)], Axis("d"), Axis("FVU"))},
        facts={"settings": {"d": 4, "seeds": [0, 1], "n": None}, "seconds": {"train": 3}},
        rows=[{"construction": "lines", "d": 4, "fvu": ONE, "overlaps": [0.9, 0.1], "told": None}],
        further={"Overlaps": Table([Cell("support"), Cell("0")], [[Cell("lines"), Cell("90%")]])},
    )


@pytest.fixture
def folder(tmp_path: Path, report: Report) -> Path:
    """The folder of a finished study."""
    written = tmp_path / "one"
    written.mkdir()
    (written / SETTINGS).write_text('{"study": "a study of supports", "settings": {"d": 4}}')
    report.write(written)
    return written


def test_a_report_is_read_back_as_it_was_written(folder: Path, report: Report) -> None:
    (chapter,) = read_reports(folder, NAMES)
    assert chapter == report
    assert chapter.to_json() == report.to_json()
    assert (chapter.name, chapter.title) == ("supports", "Where values are")
    assert chapter.findings == ["Lines are < others & cheaper.", "Nothing dies."]
    assert chapter.notes == ["Means over seeds."]
    assert [[cell.text for cell in row] for row in chapter.tables["All"].rows] == [["lines", "0.500"]]
    assert chapter.tables["All"].rows[0][1].terse == "±0.100"
    assert [cell.text for cell in chapter.tables["All"].headings] == ["support", "FVU"]
    assert list(chapter.tables) == ["All"]
    assert list(chapter.further) == ["Overlaps"]
    assert chapter.pictures["fvu"].svg == (folder / "supports_fvu.svg").read_text()
    assert chapter.made[:4] == [("d", "4"), ("seeds", "0, 1"), ("n", "–"), ("seconds", "train 3")]


def test_the_page_holds_all_of_them_and_needs_nothing_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = shutil.copytree(folder, tmp_path / "again")
    out = tmp_path / "deep" / "page.html"
    main(["study", "page", str(folder), str(again), "--out", str(out), "--title", "Ours & theirs"])
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


@pytest.mark.parametrize("missing", ["supports.md", "supports_fvu.svg"])
def test_a_report_that_lacks_a_file_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ExpanderError, match=rf"is not finished, {missing} is missing; run its study again"):
        read_reports(folder, NAMES)


def test_folders_without_a_report_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpanderError, match="There is no folder"):
        read_reports(tmp_path / "nowhere", NAMES)
    with pytest.raises(ExpanderError, match="is not the folder of a study; give one that expander study or"):
        read_reports(tmp_path, NAMES)
    (tmp_path / "config.json").write_text(json.dumps({"format": "expander-sae"}))
    with pytest.raises(ExpanderError, match="is not the folder of a study"):
        read_reports(tmp_path, NAMES)
    (folder / "supports.json").unlink()
    with pytest.raises(ExpanderError, match="is not finished; run it again with the same --out"):
        read_reports(folder, NAMES)


def test_damaged_reports_are_refused(folder: Path) -> None:
    path = folder / "supports.json"
    content = json.loads(path.read_text())
    for part in ("title", "tables", "notes", "pictures", "rows", "intervals"):
        write_checked(path, {name: each for name, each in content.items() if name not in (part, "checksum")})
        with pytest.raises(ExpanderError, match=r"supports.json was edited or damaged; run its study again"):
            read_reports(folder, NAMES)


def test_entries_of_another_kind_are_damage(folder: Path) -> None:
    path = folder / "supports.json"
    content = json.loads(path.read_text())
    table = next(iter(content["tables"]))
    other = {**content["tables"][table], "rows": [[["text", 1, []]]]}
    for change in ({"findings": 3}, {"title": None}, {"rows": [1]}, {"tables": {table: other}}, {"features": "x"}):
        write_checked(path, {name: each for name, each in {**content, **change}.items() if name != "checksum"})
        with pytest.raises(ExpanderError, match=r"supports.json was edited or damaged; run its study again"):
            read_reports(folder, NAMES)


def test_a_title_that_no_file_holds_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "page", str(folder), "--out", str(folder / "x.html"), "--title", "\udcff"])
    assert "The title holds '\\udcff', which is no character" in capsys.readouterr().err


def test_numbers_that_were_damaged_are_refused(folder: Path) -> None:
    (folder / "supports.json").write_text("[")
    with pytest.raises(ExpanderError, match=r"supports.json was edited or damaged"):
        read_reports(folder, NAMES)


def test_nothing_to_bind_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "page"])
    assert "give at least one folder of a finished study" in capsys.readouterr().err


def test_make_runs_every_study_and_binds_them_all() -> None:
    lines = (Path(__file__).parents[2] / "Makefile").read_text().splitlines()
    commands = [line.split("expander study ", 1)[1].split() for line in lines if "(BIN)/expander study " in line]
    studies = [name for name in STUDIES if name not in ("planted", "readable")]  # which needs a text
    assert {command[0] for command in commands} == {"page", *studies}
    (bound,) = [" ".join(command) for command in commands if command[0] == "page"]
    assert f"$(addprefix $(RUNS)/,{' '.join(studies)})" in bound


def test_help_says_of_every_study_what_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    said = capsys.readouterr().out
    for name, question in STUDIES.items():
        assert f"  {name:12}  {question}\n" in said
        assert question.endswith("?")
        assert import_module(f"expander_sae.studies.{name}").STUDY.config.__doc__
    with pytest.raises(SystemExit):
        main(["study", "nothing"])
    assert "There is no study 'nothing'" in capsys.readouterr().err
