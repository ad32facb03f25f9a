"""`expander steer` and `expander attribute` from the outside, on a tiny model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import expander_sae as xs
from expander_sae.activations.models import LanguageModel
from expander_sae.cli.main import main
from expander_sae.interventions import edit_in_units
from tests.dashboard import conftest

PROMPT = "The river and the bridge"
run = conftest.run
# A trained dictionary with its features.


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> LanguageModel:
    return xs.load_language_model(str(tiny_model_folder))


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_both_texts_and_the_table(run: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    largest = xs.FeatureDatabase.open(run).largest
    feature = int(largest.argmax())
    options = ["--add", f"{feature}:1.5", "--clamp", "3:0", "--scale", "4:0.5", "--ablate", "9", "--tokens", "5"]
    out = printed(capsys, "steer", str(run), "--prompt", PROMPT, *options)
    sae = xs.SparseAutoencoder.load(run)
    edits = [edit_in_units("add", feature, 1.5, float(largest[feature])),
             xs.Clamp(3, 0.0), xs.Scale(4, 0.5), xs.Ablate(9)]  # fmt: skip
    found = xs.steer(model, {"layers.1": sae}, {"layers.1": edits}, PROMPT, tokens=5)
    seen = "".join(each for each in out if each.isprintable())
    for heading, text in (("Without:", found.without), ("Steered:", found.steered)):
        assert heading + PROMPT + "".join(each for each in text if each.isprintable()) in seen
    assert [repr(each.text) in out for each in found.next_tokens] == [True] * len(found.next_tokens)


def test_raw_strengths_from_the_first_written_token_on(
    run: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "steer", str(run), "--prompt", PROMPT, "--add", "7:40", "--raw", "--from", "generated",
                  "--tokens", "6", "--drop-error", "--temperature", "0.5", "--seed", "3")  # fmt: skip
    length = len(model.tokenizer(PROMPT)["input_ids"])
    edits = [xs.Add(7, 40.0, slice(length, None))]
    found = xs.steer(model, {"layers.1": xs.SparseAutoencoder.load(run)}, {"layers.1": edits}, PROMPT, tokens=6,
                     temperature=0.5, seed=3, keep_error=False)  # fmt: skip
    seen = "".join(each for each in out if each.isprintable())
    assert PROMPT + "".join(each for each in found.steered if each.isprintable()) in seen


def test_strengths_need_the_database_or_raw(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("features"))
    sentence = refused(capsys, "steer", str(bare), "--prompt", PROMPT, "--add", "3:1")
    assert f"run `expander features {bare}` first, or give --raw" in sentence
    assert "Steered:" in printed(capsys, "steer", str(bare), "--prompt", PROMPT, "--ablate", "3", "--tokens", "1")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "There is nothing to steer; give --add, --clamp, --scale or --ablate."),
        (["--add", "12"], "--add takes FEATURE:STRENGTH, such as 12:1.5, and '12' is not."),
        (["--clamp", "x:1"], "--clamp takes FEATURE:STRENGTH, such as 12:1.5, and 'x:1' is not."),
        (["--ablate", "48"], "There is no feature 48; they are numbered from 0 to 47."),
        (["--scale", "1:inf"], "A feature cannot be made inf strong; give a finite number."),
        (["--ablate", "1", "--hookpoint", "layers.9"], "layers.9"),
    ],
)
def test_what_cannot_be_steered(
    run: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(capsys, "steer", str(run), "--prompt", PROMPT, *options)


def test_attribution_lists_the_largest_effects(
    run: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    token, other = (model.tokenizer.decode([each]) for each in model.tokenizer("eo")["input_ids"])
    out = printed(capsys, "attribute", str(run), "--text", PROMPT, "--token", token, "--other", other, "--top", "5")
    ids = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"][0]
    metric = xs.logit_difference(*model.tokenizer("eo")["input_ids"])
    found = xs.attribute(model, {"layers.1": xs.SparseAutoencoder.load(run)}, ids, metric, ablate=5)
    rows = [line for line in out.splitlines() if re.search(r"\(\d+\)", line)]
    assert [int(re.search(r"\d+", row)[0]) for row in rows] == [each.feature for each in found.tried]
    for row, each in zip(rows, found.tried, strict=True):
        assert f"{each.by_gradient:+.3g}" in row
        assert f"{each.by_ablation:+.3g}" in row
    assert f"Rank correlation of the two effects: {found.agreement:.2f}." in out


def test_attribution_of_the_loss(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cross-entropy of the text" in printed(capsys, "attribute", str(run), "--text", PROMPT, "--loss")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Say what to explain"),
        (["--loss", "--token", "e"], "Say what to explain"),
        (["--token", "zebra crossing"], "'zebra crossing' is not one token of"),
        (["--loss", "--top", "0"], "top must be at least 1, not 0."),
    ],
)
def test_what_cannot_be_attributed(
    run: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(capsys, "attribute", str(run), "--text", PROMPT, *options)
