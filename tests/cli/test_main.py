"""The command line as a whole: help that names every command, and one sentence for every mistake."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from expander_sae.cli.commands import NAMES, overview
from expander_sae.cli.main import INTERRUPTED, PIPE_CLOSED, main
from expander_sae.errors import ExpanderError
from expander_sae.version import __version__
from tests.autoencoder.autoencoders import autoencoder

EXPANDER = [sys.executable, "-m", "expander_sae"]


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
        "info compress model harvest train finetune cut grow eval features quality dashboard view steer attribute"
    )
    commands += " certify demo study bench export import push pull"
    for command in commands.split():
        assert f"• {command}" in printed
    assert set(commands.split()) == set(NAMES)


def test_help_fits_a_screen():
    lines = overview().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_help_loads_only_what_it_needs():
    look = """
import sys
from expander_sae.cli.main import main
try:
    main(["--help"])
finally:
    assert not {"torch", "numpy", "numba", "scipy", "tyro"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", look], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: expander {name} ")


def test_a_command_that_is_not_there(capsys):
    for arguments in (["certfy"], ["certfy", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert printed.err == (
            "expander: There is no command 'certfy'; did you mean certify? `expander --help` lists them all.\n"
        )
        assert not printed.out


def test_no_command_is_a_mistake_that_is_answered_by_the_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert capsys.readouterr().out == overview() + "\n"


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"expander-sae {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"]])
def test_a_pipe_that_is_closed_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run([*EXPANDER, *arguments], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert done.stderr == ""
    assert done.returncode == PIPE_CLOSED


INTERRUPTED_AT = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
sys.meta_path.insert(0, Interrupt())
from expander_sae.cli.main import main
main(["certify", "nowhere"])
"""


@pytest.mark.parametrize("module", ["tyro", "expander_sae.cli.certify", "numpy", "torch._C", "expander_sae.kernels"])
def test_ctrl_c_is_one_sentence_also_while_everything_is_loaded(module):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT, module], capture_output=True, text=True)
    assert done.stderr == "expander: Interrupted.\n"
    assert done.returncode == INTERRUPTED


INTERRUPTED_IN_A_CLASS = """
import expander_sae.cli.main as command
class Slow:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt
def run(name, arguments):
    class Made:  # which Python 3.11 tells of as a RuntimeError
        field = Slow()
command.run = run
command.main(["info", "nowhere"])
"""


def test_ctrl_c_is_one_sentence_also_while_a_class_is_made():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IN_A_CLASS], capture_output=True, text=True)
    assert done.stderr == "expander: Interrupted.\n"
    assert done.returncode == INTERRUPTED


def test_a_folder_may_have_any_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    autoencoder("recipe", provenance={"model": "[/x]"}).save("[/x]")
    main(["info", "[/x]"])
    main(["compress", "[/x]", "[bold]"])
    main(["certify", "[bold]", "--supports", "5", "--restarts", "2", "--json", "[red].json"])
    assert "Written to [red].json." in capsys.readouterr().out
    wrong = (
        ["eval", "[/y]"],
        ["train", "[/y]", "--n", "64", "--out", "z"],
        ["study", "page", "[/y]"],
        ["harvest", "[/y]", "--out", "z"],
    )
    for arguments in wrong:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 1
        assert "[/y]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ExpanderError("That cannot be."), "expander: That cannot be."),
        (FileNotFoundError(2, "No such file or directory", "there"), "expander: No such file or directory: there."),
        (MemoryError(), "expander: There is not enough memory for this"),
        (
            ImportError("x.so: failed to map segment from shared object"),
            "expander: There is not enough memory for this (x.so: failed to map",
        ),
    ],
)
def test_failures_are_one_sentence_without_a_traceback(monkeypatch, capsys, error, sentence):
    monkeypatch.setattr("expander_sae.cli.study.Page.run", failing_with(error))
    with pytest.raises(SystemExit) as ended:
        main(["study", "page"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence)
    assert printed.err.count("\n") == 1
    assert not printed.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["study", "planted", "--k", "0"], "k must be at least 1"),
        (["study", "planted", "--m", "eight"], "--m"),
        (["sing"], "sing"),
    ],
)
def test_wrong_arguments_are_explained(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code != 0
    assert sentence in capsys.readouterr().err


def test_planted_recovers_and_compares(capsys, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    main(["study", "planted", "--m", "64", "--n", "128", "--d", "6", "--k", "3", "--tokens", "20", *out])
    printed = capsys.readouterr().out
    assert "OMP" in printed
    assert "times smaller" in printed


def test_bench_checks_its_arguments_first(capsys, tmp_path):
    for arguments, sentence in (
        (["--repeats", "0"], "repeats must be from 1 to 1000, not 0."),
        (["--json", str(tmp_path / "missing" / "out.json")], "does not exist"),
    ):
        with pytest.raises(SystemExit):
            main(["bench", *arguments])
        assert sentence in capsys.readouterr().err.replace("\n", "")
