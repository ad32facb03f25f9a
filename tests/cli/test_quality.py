"""`expander quality` from the outside, on dictionaries trained on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expander_sae.activations.texts import documents
from expander_sae.cli.main import main
from expander_sae.reporting.dashboard import measures_in
from expander_sae.reporting.report import Report
from tests.activations.prose import write_prose
from tests.evaluation.quality.judge_server import agreeable, judge_server
from tests.evaluation.subjects import random


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A sparse and a dense dictionary trained on the tiny model's activations."""
    folder = tmp_path_factory.mktemp("run")
    prose = write_prose(folder, documents=400)
    text = ["--text", prose.text, "--context", "32"]
    main(["harvest", str(tiny_model_folder), "--out", str(folder / "acts"), "--hookpoint", "layers.1",
          "--tokens", "2000", *text])  # fmt: skip
    main(["train", str(folder / "acts"), "--out", str(folder / "run"), "--n", "32", "--d", "4", "--k", "3",
          "--tokens", "1280", "--batch", "64", "--also", "dense", "--no-progress"])  # fmt: skip
    return folder / "run"


@pytest.fixture
def sparse(run: Path) -> Path:
    """The folder of the sparse one."""
    (found,) = run.glob("learned-*")
    return found


SMALL = ["--features", "8", "--effects", "2", "--shown", "2"]


def output(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """What is said of a command that fails, or (code 2) that cannot be read."""
    with pytest.raises(SystemExit) as ended:
        main(["quality", *arguments])
    assert ended.value.code == code
    return " ".join(capsys.readouterr().err.split())


def test_tables_are_printed_without_a_folder(run: Path, sparse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["quality", str(run), *SMALL])
    printed = output(capsys)
    for part in ("Readability:", sparse.name, "dense-n32-topk3", "raw coordinates", "random contexts",
                 "By rank of pick:", "95 % over features and documents", "Patterns, losses, effects"):  # fmt: skip
        assert part in printed


def test_a_folder_holds_everything_and_is_gone_on_with(
    run: Path, sparse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["quality", str(run), "--out", str(out), *SMALL])
    assert f"The page is {out}/quality.html." in output(capsys)
    names = {path.name for path in out.iterdir()}
    assert {"quality.json", "quality.csv", "quality.md", "quality.html", "quality_measures.svg", "quality_ranks.svg",
            "held_out.safetensors", "measured"} <= names  # fmt: skip
    page = (out / "quality.html").read_text()
    for part in ("How readable the features are", "Drawn at random", "fires on", sparse.name):
        assert part in page
    report = Report.read(out / "quality.json")
    shown = {measure.name for measure in measures_in(out / "quality.json", sparse.name)}
    assert {"token R²", "purity", "probe, 8 features"} <= shown
    assert [row["dictionary"] for row in report.rows][-2:] == ["raw coordinates", "random contexts"]
    kept = [(out / "measured" / f"{name}.json").stat().st_mtime_ns for name in ("dense-n32-topk3", "raw coordinates")]
    main(["quality", str(run), "--out", str(out), *SMALL])
    again = [(out / "measured" / f"{name}.json").stat().st_mtime_ns for name in ("dense-n32-topk3", "raw coordinates")]
    assert kept == again


def test_labels_a_coder_and_another_seed(
    run: Path, sparse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_prose(tmp_path, documents=60)
    labelled = [
        {"text": document.text, "spans": [[4, 9, "river"], [18, 24, "bridge"]]}
        for document in documents(text.text, part="all")
    ]  # fmt: skip
    path = tmp_path / "labelled.jsonl"
    path.write_text("\n".join(map(json.dumps, labelled)))
    main(["quality", str(sparse), "--labels", str(path), "--text", str(path), "--part", "all", "--coder", "topk:2",
          "--again", str(run / "dense-n32-topk3"), "--out", str(tmp_path / "out"), "--no-ranks", *SMALL])  # fmt: skip
    printed = output(capsys)
    for part in ("topk:2", "Patterns, losses, effects and stability", "again"):
        assert part in printed
    content = json.loads((tmp_path / "out" / "quality.json").read_text())
    labels = {(probe["suite"], probe["label"]) for probe in content["qualities"][0]["probes"]}
    assert {("labelled", "river"), ("labelled", "bridge")} <= labels
    assert "Probes: labelled" in (tmp_path / "out" / "quality.md").read_text()


def test_a_judge_comes_last_and_says_its_price_first(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["quality", str(run / "dense-n32-topk3"), "--out", str(tmp_path), "--judge-features", "2", *SMALL]
    with judge_server(agreeable) as server:
        main([*arguments, "--judge", server.url, "--judge-model", "small"])
        printed = output(capsys)
        asked = len(server.asked)
    assert "The judge is asked" in printed
    assert printed.index("The judge is asked") < printed.index("What the judge says")
    assert "Tokens about rivers." in (tmp_path / "quality.html").read_text()
    # The judge is gone, but everything that it was asked is known.
    main([*arguments, "--judge", server.url, "--judge-model", "small"])
    assert "The judge is asked 0 questions" in output(capsys)
    assert len(server.asked) == asked


def test_a_judge_that_is_not_there_costs_nothing_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expander_sae.evaluation.quality.judge.client.PAUSE", 0)
    with judge_server(agreeable) as server:
        pass
    said = refused(capsys, str(run / "dense-n32-topk3"), "--out", str(tmp_path), "--judge", server.url,
                   "--judge-model", "small", *SMALL)  # fmt: skip
    assert "does not answer" in said
    assert "goes on from there" in said
    assert (tmp_path / "quality.html").exists()


def test_what_cannot_be_done_is_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(run / "dense-n32-topk3")
    assert "a single document" in refused(capsys, one, "--tokens", "6", *SMALL)
    assert "another text" in _after(run, tmp_path, capsys)
    assert "is no address" in refused(capsys, one, "--judge", "here", "--judge-model", "a", *SMALL)
    assert "give --judge-model" in refused(capsys, one, "--judge", "http://localhost:1/v1", *SMALL)
    assert "2 other seeds for 1" in refused(capsys, one, "--again", one, "--again", one, *SMALL)
    assert "--signed belongs" in refused(capsys, one, "--signed", *SMALL)
    assert "features must be at least 1" in refused(capsys, one, "--features", "0", code=2)
    narrow = random(8, hookpoint="layers.1", text=str(run), context=32, bos=False, column="text")
    narrow.save(tmp_path / "narrow")
    known = json.loads((run / "dense-n32-topk3" / "config.json").read_text())["provenance"]["activations"]
    said = refused(capsys, str(tmp_path / "narrow"), "--model", known["model"], "--text", known["text"], *SMALL)
    assert "of width 8" in said


def _after(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of another text for a folder that holds one."""
    one = [str(run / "dense-n32-topk3"), "--out", str(tmp_path / "out"), "--no-ranks", *SMALL]
    main(["quality", *one])
    return refused(capsys, *one, "--tokens", "300")
