"""Support controls on a few planted tokens."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae.autoencoder import SparseAutoencoder, describe
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import Interval, Kind, evaluate_activations
from expander_sae.reporting.report import Report
from expander_sae.studies import compare, data
from expander_sae.studies.compare import EVALUATIONS, TRAINED, Comparison, Record, read_evaluations
from expander_sae.studies.supports import HELD_OUT, Shape, compared, run
from expander_sae.studies.supports.config import DEGENERATE, SPREAD, Recipe, SupportsConfig
from expander_sae.studies.supports.report import findings
from tests.studies.notebook import Notebook

Result = tuple[Comparison[SupportsConfig], dict[tuple[Recipe, int], Shape], dict[str, str]]
CLUSTERED = ("clustered:4", "clustered:8")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SupportsConfig:
    return SupportsConfig(
        synthetic=True, n=144, k=3, degrees=(1, 8), clusters=(1, 2), seeds=(0, 1), tokens=512,
        evaluation_tokens=512, out=tmp_path_factory.mktemp("supports") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(config: SupportsConfig) -> Result:
    return compared(config, Notebook())


@pytest.fixture(scope="module")
def report(config: SupportsConfig, result: Result) -> Report:
    return run(config, Notebook())


def test_every_support_is_trained_with_both_coders_and_every_seed(result: Result) -> None:
    found = {
        tuple(record.labels[name] for name in ("construction", "d", "coder", "seed")) for record in result[0].records
    }
    supports = [(name, 4) for name in (*SPREAD, *CLUSTERED, *DEGENERATE)] + [("uniform", 1), ("uniform", 8)]
    assert found == {(*support, coder, seed) for support in supports for coder in ("topk", "omp") for seed in (0, 1)}
    assert not result[2]


def test_dictionaries_are_on_the_supports_that_are_described(config: SupportsConfig, result: Result) -> None:
    sae = SparseAutoencoder.load(config.out / TRAINED / "clustered-8-d4-n144-omp3-seed1")
    shape = result[1][Recipe("clustered:8", 4), 1]
    record = next(each for each in result[0].records if each.is_called(construction="clustered:8", coder="omp", seed=1))
    assert record["distinct"].value == shape.distinct / 144
    assert record["uncovered"].value == shape.uncovered
    rows = sae.dictionary.get_buffer("rows").long()
    touched = torch.zeros(144, 96).scatter(1, rows, 1.0)
    shared = (touched @ touched.T)[*torch.triu_indices(144, 144, 1)].long()
    assert shape.overlaps == torch.bincount(shared, minlength=5).tolist()
    assert shape.distinct == len(touched.unique(dim=0))
    assert shape.uncovered == int((touched.sum(dim=0) == 0).sum())
    assert describe(config.out / TRAINED / "shared-d4-n144-topk3").coder["name"] == "TopK"


def test_each_is_measured_on_held_out_tokens_with_its_coder(config: SupportsConfig, result: Result) -> None:
    record = next(each for each in result[0].records if each.is_called(construction="lines", coder="topk", seed=0))
    sae = SparseAutoencoder.load(config.out / TRAINED / "lines-d4-n144-topk3")
    x = data.planted_activations(data.TRAINED + HELD_OUT)[data.TRAINED :]
    alone = evaluate_activations(sae, x, tokens=512)
    (evaluation,) = read_evaluations(config.out / EVALUATIONS / "lines-d4-n144-topk3.json").values()
    assert evaluation.coder == "topk:3"
    assert record["fvu"].value == pytest.approx(alone.fvu.value)
    assert record["never_fired"].value == alone.never_fired


def test_a_second_run_does_only_what_is_missing(
    config: SupportsConfig, report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    monkeypatch.setattr(compare, "train", lambda *_, **__: pytest.fail("done already"))
    (here.out / EVALUATIONS / "banded-d4-n144-omp3.json").unlink()
    notebook = Notebook()
    mended = run(here, notebook)
    assert [outcome.startswith("found ") for outcome in notebook.outcomes] == [True, False]
    assert repr(mended.rows) == repr(report.rows)  # nan is not itself
    with pytest.raises(ExpanderError, match=r"holds a study of supports with d=4, not 5"):
        run(dataclasses.replace(here, d=5), Notebook())


def test_what_does_not_exist_is_left_out_and_named(config: SupportsConfig) -> None:
    recipes, absent = dataclasses.replace(config, n=768).recipes(96)
    assert set(absent) == {"lines", "greedy", "cyclic"}
    assert "at most 525 features" in absent["lines"]
    assert not {"lines", "greedy", "cyclic"} & {each.construction for each in recipes}


def test_the_report_has_every_number(config: SupportsConfig, report: Report) -> None:
    path, rows = report.write(config.out), report.rows
    text = path.read_text()
    assert all(f"| {row['construction']} | {row['d']} | {row['coder']} |" in text for row in rows)
    assert "Intervals: least and most over seeds." in text
    assert Report.read(config.out / "supports.json").tables == report.tables
    with open(config.out / "supports.csv") as file:
        assert [float(line["fvu"]) for line in csv.DictReader(file)] == [row["fvu"].value for row in rows]
    content = json.loads((config.out / "supports.json").read_text())
    assert content["settings"]["n"] == 144
    assert [len(row["overlaps"]) for row in content["rows"]] == [row["d"] + 1 for row in rows]
    assert str(config.out) not in json.dumps(content)
    for name in ("fvu", "dead"):
        drawing = (config.out / f"supports_{name}.svg").read_text()
        assert all(word in drawing for word in ("clustered:8", "lines", "d=8", "topk", "omp"))
        assert (config.out / f"supports_{name}.png").stat().st_size > 1000
    (table,), (overlaps,) = report.tables.values(), report.further.values()
    assert len(table.rows) == len(rows) == 2 * len(overlaps.rows)


def row(construction: str, fvu: float, dead: float, d: int = 4) -> Record:
    """A row of three seeds, 0.01 to both sides, under TopK."""
    around = {
        name: Interval(value, value - 0.01, value + 0.01, Kind.LEAST_AND_MOST)
        for name, value in {"fvu": fvu, "never_fired": dead}.items()
    }
    return Record({"construction": construction, "d": d, "coder": "topk"}, around)


def said(*rows: Record) -> list[str]:
    both = [*rows, *(dataclasses.replace(row, labels={**row.labels, "coder": "omp"}) for row in rows)]
    return findings(both, 4)


def test_words_follow_the_numbers() -> None:
    line = [row("uniform", 0.50, 0.10), row("uniform", 0.9, 0.3, d=1), row("uniform", 0.3, 0.0, d=16)]
    spread, deaths, worse, *_ = said(
        *line, row("lines", 0.53, 0.1), row("clustered:4", 0.6, 0.2), row("block", 0.51, 0)
    )
    assert "5.0% of that spread, so how many values a column has decides here" in spread
    assert "20.0% in clusters of 4: more with every seed in clusters of 4." in deaths
    assert "under topk: clustered:4 0.600; not clearly worse: block 0.510" in worse

    spread, deaths, worse, *_ = said(*line, row("lines", 0.9, 0.1), row("clustered:4", 0.5, 0.11))
    assert "66.7% of that spread, so where they are, as much as how many, decides here" in spread
    assert "10.0% to 10.0% where rows are spread, 11.0% in clusters of 4: not clearly more" in deaths
    assert "150.0% of that spread, so where they are, as much" in said(*line, row("lines", 1.4, 0.1))[0]
    assert "250.0% of that spread, so where they are, more than how many, decides" in said(*line, row("lines", 2, 0))[0]
    assert "under topk: none of them; not clearly worse: clustered:4 0.500" in worse


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"synthetic": False}, "Give either the folder of a store with --store or --synthetic"),
        ({"d": 0}, "d must be at least 1, not 0"),
        ({"clusters": (0,)}, "clusters must be different numbers of at least 1"),
        ({"seeds": ()}, "seeds must be different numbers of at least 0"),
    ],
)
def test_settings_that_cannot_be(config: SupportsConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)
