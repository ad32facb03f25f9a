"""A study of scaling on a few planted tokens."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expander_sae import training
from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import load_language_model
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.cli.main import main
from expander_sae.errors import ExpanderError, StoppedError
from expander_sae.evaluation import evaluate_activations
from expander_sae.studies import compare, data
from expander_sae.studies.compare import EVALUATIONS, TRAINED, Comparison, Record
from expander_sae.studies.scaling import HELD_OUT, HELD_OUT_STORE, PLANTED, compared, on_trial, run
from expander_sae.studies.scaling.config import Grid, ScalingConfig
from expander_sae.studies.scaling.law import Trials
from expander_sae.studies.scaling.report import report_of
from expander_sae.studies.study import read_reports
from tests.studies.notebook import Notebook


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ScalingConfig:
    return ScalingConfig(
        synthetic=True, n=(96, 48), k=(3,), d=(2, 4, 8), tokens=(1024, 512), seeds=(0, 1), batch=128,
        evaluation_tokens=256, out=tmp_path_factory.mktemp("scaling") / "out",
    )  # fmt: skip


Result = tuple[Comparison[ScalingConfig], Grid]


@pytest.fixture(scope="module")
def result(config: ScalingConfig) -> Result:
    return compared(config, Notebook())


@pytest.fixture(scope="module")
def study(result: Result) -> tuple[list[Record], Trials]:
    comparison, grid = result
    return on_trial(comparison.records, grid)


def test_every_cell_is_trained_on_its_own_number_of_tokens(config: ScalingConfig, result: Result) -> None:
    places = {tuple(each.labels[name] for name in ("n", "d", "tokens", "seed")) for each in result[0].records}
    assert places == {(n, d, t, seed) for n in (48, 96) for d in (2, 4, 8) for t in (512, 1024) for seed in (0, 1)}
    trained = [SparseAutoencoder.load(config.out / TRAINED / each / "learned-d4-n96-omp3") for each in ("512", "1024")]
    assert [sae.provenance["tokens"] for sae in trained] == [512, 1024]
    assert all(sae.provenance["training"]["warm_up"] == 0.02 for sae in trained)


def test_each_is_measured_on_held_out_tokens(config: ScalingConfig, result: Result) -> None:
    x = data.planted_activations(PLANTED + HELD_OUT)[PLANTED:]
    sae = SparseAutoencoder.load(config.out / TRAINED / "1024" / "learned-d8-n48-omp3-seed1")
    (record,) = (each for each in result[0].records if each.is_called(n=48, d=8, tokens=1024, seed=1))
    assert record["fvu"].value == pytest.approx(evaluate_activations(sae, x, tokens=256).fvu.value)
    assert np.isnan(record["clean"].value)


def test_rows_are_means_over_seeds_with_predictions(result: Result, study: tuple[list[Record], Trials]) -> None:
    rows, trials = study
    assert len(rows) == 12
    assert trials.factors == ("n", "d", "tokens")
    first = [each["fvu"] for each in result[0].records if each.is_called(n=48, d=2)][:2]
    fvu, predicted, miss = (rows[0][name].value for name in ("fvu", "predicted", "miss"))
    assert fvu == pytest.approx((first[0].value + first[1].value) / 2)
    assert predicted == pytest.approx(float(np.exp(trials.best.left_out[0])))
    assert predicted == pytest.approx(fvu * (1 + miss))


def test_a_second_run_does_only_what_is_missing(
    config: ScalingConfig, result: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    monkeypatch.setattr(compare, "train", lambda *_, **__: pytest.fail("done already"))
    (here.out / EVALUATIONS / "512-tokens-learned-d2-n48-omp3.json").unlink()
    notebook = Notebook()
    mended, _ = compared(here, notebook)
    assert [outcome.startswith("found ") for outcome in notebook.outcomes] == [True, True, False]
    assert repr(mended.records) == repr(result[0].records)  # nan is not itself
    with pytest.raises(ExpanderError, match=r"holds a study of scaling with batch=128, not 64"):
        run(dataclasses.replace(here, batch=64), Notebook())


def test_a_stopped_run_goes_on_at_the_unfinished_pass(
    config: ScalingConfig, result: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, train, asked = dataclasses.replace(config, out=tmp_path / "out"), training.train, list[int]()

    def stopping(source: Any, configs: Any, **options: Any) -> None:
        asked.append(configs[0].tokens)
        if asked == [512, 1024]:
            raise StoppedError("Stopped after 0 of 1024 tokens.", signal.SIGTERM)
        train(source, configs, **options)

    monkeypatch.setattr(compare, "train", stopping)
    with pytest.raises(StoppedError, match="the same command goes on from there"):
        run(here, Notebook())
    again, _ = compared(here, Notebook())
    assert asked == [512, 1024, 1024]
    assert repr(again.records) == repr(result[0].records)


def test_the_report_has_every_number_and_can_be_bound(
    config: ScalingConfig, result: Result, study: tuple[list[Record], Trials]
) -> None:
    rows, trials = study
    text = report_of(*result, rows, trials).write(config.out).read_text()
    assert all(
        f"| {row.labels['n']} | {row.labels['k']} | {row.labels['d']} | {row.labels['tokens']:,} "
        f"| {row.counts['learned_values']} |" in text
        for row in rows
    )
    with open(config.out / "scaling.csv") as file:
        assert [float(line["predicted"]) for line in csv.DictReader(file)] == [row["predicted"].value for row in rows]
    content = json.loads((config.out / "scaling.json").read_text())
    assert content["settings"]["d"] == [2, 4, 8]
    assert [law["form"] for law in content["laws"]] == [trial.law.form.name for trial in trials.trials]
    assert sum(law["chosen"] for law in content["laws"]) == 1
    assert content["laws"][0]["beyond"].keys() == {"d"}
    assert str(config.out) not in json.dumps(content)
    (report,) = read_reports(config.out, ["scaling"])
    assert list(report.pictures) == ["over_n", "over_tokens", "held_out"]
    assert list(report.tables) == ["Laws", "What the law is made of"]
    assert len(report.findings) == 8
    drawing = (config.out / "scaling_over_tokens.svg").read_text()
    assert all(f">{word}</text>" in drawing for word in ("d=2", "d=4", "d=8", "tokens", "512", "1.02k"))


def test_a_law_over_one_factor_is_possible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--n", "48", "--k", "3", "--d", "4", "--tokens", "256", "512", "640", "768", "1024"]
    recipe = ["--coder", "topk", "--construction", "uniform", "--batch", "128"]
    main(["study", "scaling", "--synthetic", *sizes, *recipe, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Twice the tokens" in printed
    assert "Not in the law" in printed
    assert (tmp_path / "out" / "scaling_over_tokens.png").exists()
    assert (tmp_path / "out" / TRAINED / "640" / "uniform-d4-n48-topk3").exists()


def test_defaults_follow_the_width(tmp_path: Path) -> None:
    synthetic, stored = ScalingConfig(synthetic=True), ScalingConfig(store=tmp_path)
    assert synthetic.grid(96, 24_576) == Grid((96, 192, 384), (2, 4, 8), (2, 4, 8), (6144, 12_288, 24_576))
    assert stored.grid(576, 400_000) == Grid(
        (1152, 2304, 4608), (8, 16, 32), (2, 4, 8, 16), (100_000, 200_000, 400_000)
    )


def test_without_a_held_out_store_one_is_harvested(tiny_model_folder: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"The river of day {n} was {n % 5} feet high, not {n * n}."}) for n in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    text = TextConfig(text=str(tmp_path / "text.jsonl"), context=64)
    harvest(load_language_model(str(tiny_model_folder)), ["layers.1"], tokens=600, out=tmp_path / "acts", text=text)
    config = ScalingConfig(
        store=tmp_path / "acts", n=(16, 32), k=(2,), d=(2, 4), tokens=(128, 256), batch=64, evaluation_tokens=150,
        out=tmp_path / "out",
    )  # fmt: skip
    found, _ = compared(config, Notebook())
    held_out = Store.open(config.out / HELD_OUT_STORE)
    assert held_out.origin["part"] == "held-out"
    assert held_out.tokens == 150
    sae = SparseAutoencoder.load(config.out / TRAINED / "128" / "learned-d2-n16-omp2")
    assert found.records[0]["fvu"].value == pytest.approx(evaluate_activations(sae, held_out).fvu.value)
    notebook = Notebook()
    given = dataclasses.replace(config, held_out=config.out / HELD_OUT_STORE, out=tmp_path / "given")
    same, _ = compared(given, notebook)
    assert [each["fvu"] for each in same.records] == [each["fvu"] for each in found.records]
    assert len(notebook.outcomes) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"synthetic": False}, "Give either the folder of a store"),
        ({"n": ()}, "n must be different numbers of at least 1"),
        ({"tokens": (512, 512)}, "tokens must be different numbers of at least 1"),
    ],
)
def test_settings_that_cannot_be(config: ScalingConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"d": (4, 97)}, "d must be at most the width of the activations, 96, not 97"),
        ({"k": (8, 64)}, "k must be at most the fewest features, 48, not 64"),
        ({"tokens": (64, 512)}, "tokens must be at least one batch, 128, not 64"),
        ({"d": (4,)}, "A law over 2 factors needs at least 6 cells, not 4"),
    ],
)
def test_grids_that_cannot_be(config: ScalingConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes).grid(96, 24_576)


def test_one_token_has_no_spread_to_measure() -> None:
    with pytest.raises(ExpanderError, match="evaluation_tokens"):
        ScalingConfig(synthetic=True, evaluation_tokens=1)
