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

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import evaluate_activations
from expander_sae.evaluation.results import Estimate
from expander_sae.experiments import comparison, frontier_data
from expander_sae.experiments.controls import EVALUATIONS, HELD_OUT, TRAINED, ControlsResult, run_controls
from expander_sae.experiments.controls_config import DEGENERATE, SPREAD, ControlsConfig
from expander_sae.experiments.controls_report import overlap_table, table_of, write_report
from expander_sae.experiments.controls_rows import Row, rows_of
from expander_sae.experiments.controls_words import sentences
from expander_sae.storage import describe
from tests.studies.notebook import Notebook

CLUSTERED = ("clustered:4", "clustered:8")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ControlsConfig:
    return ControlsConfig(
        synthetic=True, n=144, k=3, degrees=(1, 8), clusters=(1, 2), seeds=(0, 1), tokens=512,
        evaluation_tokens=512, out=tmp_path_factory.mktemp("controls") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(config: ControlsConfig) -> ControlsResult:
    return run_controls(config, Notebook(), progress=False)


def test_every_support_is_trained_with_both_coders_and_every_seed(result: ControlsResult) -> None:
    found = {(cell.contender.construction, cell.contender.d, cell.coder, cell.seed) for cell in result.cells}
    supports = [(name, 4) for name in (*SPREAD, *CLUSTERED, *DEGENERATE)] + [("uniform", 1), ("uniform", 8)]
    assert found == {(*support, coder, seed) for support in supports for coder in ("topk", "omp") for seed in (0, 1)}
    assert not result.absent


def test_dictionaries_are_on_the_supports_that_are_described(config: ControlsConfig, result: ControlsResult) -> None:
    sae = SparseAutoencoder.load(config.out / TRAINED / "clustered-8-d4-n144-omp3-seed1")
    cell = next(
        cell for cell in result.cells
        if (cell.contender.construction, cell.coder, cell.seed) == ("clustered:8", "omp", 1)
    )  # fmt: skip
    rows = sae.dictionary.get_buffer("rows").long()
    touched = torch.zeros(144, 96).scatter(1, rows, 1.0)
    shared = (touched @ touched.T)[*torch.triu_indices(144, 144, 1)].long()
    assert cell.shape.overlaps == torch.bincount(shared, minlength=5).tolist()
    assert cell.shape.distinct == len(touched.unique(dim=0))
    assert cell.shape.uncovered == int((touched.sum(dim=0) == 0).sum())
    assert describe(config.out / TRAINED / "shared-d4-n144-topk3").coder["name"] == "TopK"


def test_each_is_measured_on_held_out_tokens_with_its_coder(config: ControlsConfig, result: ControlsResult) -> None:
    cell = next(cell for cell in result.cells if cell.contender.construction == "lines" and cell.coder == "topk")
    sae = SparseAutoencoder.load(config.out / TRAINED / "lines-d4-n144-topk3")
    x = frontier_data.planted_activations(frontier_data.TRAINED + HELD_OUT)[frontier_data.TRAINED :]
    alone = evaluate_activations(sae, x, tokens=512)
    assert cell.evaluation.coder == "topk:3"
    assert cell.evaluation.fvu.value == pytest.approx(alone.fvu.value)
    assert cell.evaluation.never_fired == alone.never_fired


def test_a_second_run_does_only_what_is_missing(
    config: ControlsConfig, result: ControlsResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    monkeypatch.setattr(comparison, "train", lambda *_, **__: pytest.fail("done already"))
    (here.out / EVALUATIONS / "banded-d4-n144-omp3.json").unlink()
    notebook = Notebook()
    mended = run_controls(here, notebook, progress=False)
    assert [outcome.startswith("found ") for outcome in notebook.outcomes] == [True, False]
    assert rows_of(mended.cells, 144) == rows_of(result.cells, 144)
    with pytest.raises(ExpanderError, match=r"holds a study of supports with d=4, not 5"):
        run_controls(dataclasses.replace(here, d=5), Notebook(), progress=False)


def test_what_does_not_exist_is_left_out_and_named(config: ControlsConfig) -> None:
    contenders, absent = dataclasses.replace(config, n=768).contenders(96)
    assert set(absent) == {"lines", "greedy", "cyclic"}
    assert "at most 525 features" in absent["lines"]
    assert not {"lines", "greedy", "cyclic"} & {each.construction for each in contenders}


def test_the_report_has_every_number(config: ControlsConfig, result: ControlsResult) -> None:
    path, rows = write_report(result), rows_of(result.cells, 144)
    text = path.read_text()
    assert all(f"| {row.construction} | {row.d} | {row.coder} |" in text for row in rows)
    with open(config.out / "controls.csv") as file:
        assert [float(line["fvu"]) for line in csv.DictReader(file)] == [row.fvu.value for row in rows]
    content = json.loads((config.out / "controls.json").read_text())
    assert content["settings"]["n"] == 144
    assert [len(row["overlaps"]) for row in content["rows"]] == [row.d + 1 for row in rows]
    assert str(config.out) not in json.dumps(content)
    for name in ("fvu", "dead"):
        drawing = (config.out / f"controls_{name}.svg").read_text()
        assert all(word in drawing for word in ("clustered:8", "lines", "d=8", "topk", "omp"))
        assert (config.out / f"controls_{name}.png").stat().st_size > 1000
    assert len(table_of(rows).rows) == len(rows) == 2 * len(overlap_table(rows).rows)


def row(construction: str, fvu: float, dead: float, d: int = 4) -> Row:
    """A row of three seeds, 0.01 to both sides, under TopK."""
    around = [Estimate(value, value - 0.01, value + 0.01) for value in (fvu, dead)]
    return Row(construction, d, "topk", *around, Estimate(1, 1, 1), 1, [0.9, 0.1], Estimate(0, 0, 0))


def said(*rows: Row) -> list[str]:
    both = [*rows, *(dataclasses.replace(row, coder="omp") for row in rows)]
    return sentences(both, 4)


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
def test_settings_that_cannot_be(config: ControlsConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)
