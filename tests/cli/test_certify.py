"""`expander certify` from the outside."""

import json

import pytest

import expander_sae as xs
from expander_sae.cli.main import main
from tests.activations.stores import WIDTH, harvest

FAST = ["--supports", "20", "--restarts", "5", "--no-progress"]


@pytest.fixture
def folder(tmp_path):
    support = xs.Support.make("uniform", m=WIDTH, n=12, d=3)
    sae = xs.SparseAutoencoder(xs.ExpanderDictionary(support), xs.OMP(k=2, signed=True))
    sae.save(tmp_path / "run" / "a")
    return tmp_path / "run" / "a"


def test_statements_are_printed_by_status_and_written(folder, tmp_path, capsys):
    store, file = harvest(tmp_path / "store"), tmp_path / "certificate.json"
    main(["certify", str(folder), "--codes", str(store), "--tokens", "30", "--k", "1", "2", "--json", str(file), *FAST])
    printed = capsys.readouterr().out
    for expected in (f"expander, m={WIDTH}, n=12, d=3, uniform rows (seed 0); k = 1, 2", "\nPROVED\n", "MEASURED, not",
                     "random sets of 1 ", "random sets of 2 ", "real codes", f"Written to {file}."):  # fmt: skip
        assert expected in printed
    content = json.loads(file.read_text())
    assert content["path"] == str(folder)
    assert content["k"] == [1, 2]
    assert content["settings"]["tokens"] == 30
    assert all(statement["name"] in printed for statement in content["statements"])


def test_the_folder_of_a_run_with_one_autoencoder_will_do(folder, capsys):
    main(["certify", str(folder.parent), *FAST])
    assert "; k = 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--json", "certificate.txt"], "certificate.txt must end in .json."),
        (
            ["--json", "nowhere/certificate.json"],
            "nowhere/certificate.json does not exist; make it",
        ),
        (["--codes", "nowhere"], "nowhere does not exist"),
        (["--k", "99"], "Only 12 columns are not zero, so no code has 99 features."),
    ],
)
def test_mistakes_are_one_sentence(folder, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        main(["certify", str(folder), *FAST, *arguments])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_folder_of_two_is_ambiguous(folder, capsys):
    xs.SparseAutoencoder.load(folder).save(folder.parent / "b")
    with pytest.raises(SystemExit):
        main(["certify", str(folder.parent), *FAST])
    assert "holds 2 autoencoders; name the folder of one of them" in capsys.readouterr().err
