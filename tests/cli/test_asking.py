"""Arguments and places are checked before anything is loaded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from expander_sae.cli.main import main
from expander_sae.errors import StoppedError
from tests.autoencoder.autoencoders import autoencoder


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("expander: ")
    assert said.count("\n") == 1
    return said


@pytest.fixture
def run(tmp_path: Path) -> Path:
    autoencoder("recipe").save(tmp_path / "run")
    return tmp_path / "run"


def seal(folder: Path, name: str, content: object) -> str:
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    "arguments", [["info", ""], ["harvest", "m", "--out", ""], ["harvest", "m", "--out="], ["train", "--n", ""]]
)
def test_empty_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is an empty text" in refused(arguments, capsys)


def test_numbers_of_commands(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value, sentence in (
        ("--tokens", "0", "tokens must be at least 1, not 0."),
        ("--tokens", str(2**63), "tokens must fit into 64 bits"),
        ("--seed", "-1", "seed must be from 0 to 4294967295, not -1."),
        ("--temperature", "inf", "temperature must be at least 0 and finite, not inf."),
    ):
        assert sentence in refused(["steer", str(run), "--prompt", "a", option, value], capsys)


def test_where_nothing_may_be_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = seal(tmp_path / "store", "manifest.json", {"format": "expander-sae-store"})
    study = seal(tmp_path / "study", "study.json", {"study": "x", "settings": {}})
    model = seal(tmp_path / "model", "config.json", {"model_type": "llama"})
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("a")
    for out, sentence in (
        (str(run), "is what is read"),
        (str(run / "in" / "side"), "which is read; choose another folder."),
        (store, "holds a store; choose another folder for an autoencoder."),
        (study, "holds a study"),
        (model, "holds a language model"),
        (str(tmp_path / "loop"), "is not a folder"),
        (str(tmp_path / "file"), "is not a folder"),
        (str(tmp_path / "file" / "x"), "is not a folder"),
        ("/dev/null", "is not a folder"),
    ):
        assert sentence in refused(["compress", str(run), out], capsys)


def test_files_that_may_not_be_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "config.json").read_bytes()
    for path, sentence in (
        (str(tmp_path), "is a folder; give the name of a file"),
        (str(tmp_path / "nowhere" / "x.json"), "does not exist; make it first."),
        (str(run / "config.json"), "belongs to an autoencoder; give another name."),
    ):
        assert sentence in refused(["certify", str(run), "--json", path], capsys)
    assert (run / "config.json").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_stopped_ends_as_a_shell_expects(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(self: object) -> None:
        raise StoppedError("Stopped after 3 tokens.", number)

    monkeypatch.setattr("expander_sae.cli.info.Info.run", stop)
    with pytest.raises(SystemExit) as ended:
        main(["info", "x"])
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "expander: Stopped after 3 tokens.\n"


HOLD = """
import sys
from pathlib import Path
from expander_sae.cli.holding import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_what_another_process_writes_is_refused_until_it_ends(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    wanted = ["compress", str(run), str(out)]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert "is being written by another process" in refused(wanted, capsys)
        assert not out.exists()
        other.kill()
    main(wanted)
    assert out.exists()
    main(wanted)  # which did not keep it
