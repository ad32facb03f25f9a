"""The command line as a whole: help that names every command, and one sentence for every mistake."""

from __future__ import annotations

import pytest

from expander_sae.cli.main import main
from expander_sae.errors import ExpanderError


def failing_with(error):
    def run(self):
        raise error

    return run


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    commands = (
        "info compress model harvest train finetune cut eval certify demo frontier controls amortisation recovery "
        "coding scaling report planted bench"
    )
    for command in commands.split():
        assert f"• {command}" in printed


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ExpanderError("That cannot be."), "expander: That cannot be."),
        (FileNotFoundError(2, "No such file or directory", "there"), "expander: No such file or directory: there."),
        (MemoryError(), "expander: There is not enough memory for this"),
    ],
)
def test_failures_are_one_sentence_without_a_traceback(monkeypatch, capsys, error, sentence):
    monkeypatch.setattr("expander_sae.cli.planted.Planted.run", failing_with(error))
    with pytest.raises(SystemExit) as ended:
        main(["planted"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence)
    assert printed.err.count("\n") == 1
    assert not printed.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["planted", "--k", "0"], "k must be between 1"),
        (["planted", "--m", "eight"], "--m"),
        (["sing"], "sing"),
    ],
)
def test_wrong_arguments_are_explained(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code != 0
    assert sentence in capsys.readouterr().err


def test_planted_recovers_and_compares(capsys):
    main(["planted", "--m", "64", "--n", "128", "--d", "6", "--k", "3", "--tokens", "20"])
    printed = capsys.readouterr().out
    assert "OMP" in printed
    assert "times smaller" in printed


def test_bench_checks_its_arguments_first(capsys, tmp_path):
    for arguments, sentence in (
        (["--repeats", "0"], "repeats must be at least 1, not 0."),
        (["--json", str(tmp_path / "missing" / "out.json")], "does not exist"),
    ):
        with pytest.raises(SystemExit):
            main(["bench", *arguments])
        assert sentence in capsys.readouterr().err.replace("\n", "")
