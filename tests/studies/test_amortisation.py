"""Amortisation on a few planted tokens."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import load_language_model
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, CoordinateDescent
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import evaluate_activations
from expander_sae.evaluation.results import NOTHING, Interval, Kind
from expander_sae.studies import compare, data
from expander_sae.studies.amortisation import HELD_OUT, compared, run
from expander_sae.studies.amortisation.config import CODERS, MLP, AmortisationConfig
from expander_sae.studies.amortisation.report import RECOVERED, findings, picture_of, report_of, table_of
from expander_sae.studies.compare import EVALUATIONS, TRAINED, Comparison, Record, over_seeds
from expander_sae.studies.study import read_reports
from tests.studies.notebook import Notebook


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AmortisationConfig:
    return AmortisationConfig(
        synthetic=True, n=96, k=3, degrees=(3, 6), seeds=(0, 1), tokens=512, evaluation_tokens=256,
        out=tmp_path_factory.mktemp("amortisation") / "out",
    )  # fmt: skip


Result = Comparison[AmortisationConfig]


@pytest.fixture(scope="module")
def result(config: AmortisationConfig) -> Result:
    return compared(config, Notebook())


def rows_of(result: Result) -> list[Record]:
    return over_seeds(result.records, ("name", "trained_with", "coder"))


def test_every_dictionary_meets_the_coders_that_it_can_have(result: Result) -> None:
    found = {tuple(row.labels.values()) for row in rows_of(result)}
    names = ["dense", "expander d=3", "expander d=6", "dense n=3", "dense n=6"]
    expected = {(name, "topk", coder) for name in names for coder in CODERS}
    assert found == expected | {(name, "omp", coder) for name in names for coder in CODERS[1:]}


def test_each_is_measured_under_its_coder_at_equal_k(config: AmortisationConfig, result: Result) -> None:
    x = data.planted_activations(data.TRAINED + HELD_OUT)[data.TRAINED :]
    sae = SparseAutoencoder.load(config.out / TRAINED / "learned-d6-n96-topk3-seed1")
    coders = {"omp": OMP(3), "lasso": CoordinateDescent(0.1, gap=1e-2, k=3, refit=True)}
    for name, coder in coders.items():
        labels = {"name": "expander d=6", "trained_with": "topk", "coder": name, "seed": 1}
        record = next(each for each in result.records if each.labels == labels)
        alone = evaluate_activations(sae.with_coder(coder), x, tokens=256)
        assert record["fvu"].value == pytest.approx(alone.fvu.value)
    assert all(each["l0"].value <= 3 for each in result.records)


def test_dense_dictionaries_in_the_loop_of_pursuit_hold_all_coordinates(
    config: AmortisationConfig, result: Result
) -> None:
    assert result.config == config  # they are on disk by then
    found = {path.name for path in (config.out / TRAINED).iterdir()}
    assert {"uniform-d96-n96-omp3", "uniform-d96-n6-omp3", "dense-n96-topk3", "dense-n3-topk3-seed1"} <= found


def test_a_second_run_does_only_what_is_missing(
    config: AmortisationConfig, result: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    monkeypatch.setattr(compare, "train", lambda *_, **__: pytest.fail("done already"))
    (here.out / EVALUATIONS / "learned-d3-n96-omp3-under-mp.json").unlink()
    mended = compared(here, Notebook())
    assert repr(rows_of(mended)) == repr(rows_of(result))  # nan is not itself
    with pytest.raises(ExpanderError, match=r"holds a study of amortisation with k=3, not 4"):
        run(dataclasses.replace(here, k=4), Notebook())


def test_the_report_has_every_number_and_can_be_bound(config: AmortisationConfig, result: Result) -> None:
    report_of(result).write(config.out)
    rows = rows_of(result)
    with open(config.out / "amortisation.csv") as file:
        assert [float(line["fvu"]) for line in csv.DictReader(file)] == [row["fvu"].value for row in rows]
    assert str(config.out) not in json.dumps(json.loads((config.out / "amortisation.json").read_text()))
    assert len(table_of(rows).headings) == 6
    drawing = (config.out / "amortisation_fvu.svg").read_text()
    assert all(f">{word}</text>" in drawing for word in (*CODERS, "expander d=3", "dense n=6", "trained with omp"))
    (report,) = read_reports(config.out, ["amortisation"])
    assert len(report.findings) == 10
    assert list(report.pictures) == ["fvu"]


def test_inside_a_language_model_what_it_loses_is_measured(tiny_model_folder: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"The river of day {n} was {n % 5} feet high, not {n * n}."}) for n in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    text = TextConfig(text=str(tmp_path / "text.jsonl"), context=64)
    harvest(load_language_model(str(tiny_model_folder)), ["layers.1"], tokens=600, out=tmp_path / "acts", text=text)
    config = AmortisationConfig(
        store=tmp_path / "acts", degrees=(2,), n=32, k=3, batch=64, seeds=(0,), evaluation_tokens=150,
        out=tmp_path / "out",
    )  # fmt: skip
    result = compared(config, Notebook())
    losses = {tuple(each.labels.values())[:3]: each for each in result.records}
    assert all(each["retention"].kind == Kind.DOCUMENTS for each in losses.values())
    one, other = losses["dense", "topk", "topk"], losses["expander d=2", "omp", "omp"]
    assert one["clean"] == other["clean"]
    assert one["patched"] != other["patched"]
    report_of(result).write(config.out)
    assert str(tmp_path) not in (config.out / "amortisation.json").read_text()


def test_what_a_language_model_lost_is_a_column_and_a_picture() -> None:
    shares = dict.fromkeys(("recovered_mean", "retention"), Interval(0.875, 0.8, 0.9, Kind.HULL))
    rows = [dataclasses.replace(row, measures={**row.measures, **shares}) for row in rows_with((0.6, 0.3, 0.2))]
    assert [cell.text for cell in table_of(rows).rows[0]][-2:] == ["87.5%", "87.5%"]
    assert picture_of(rows, RECOVERED, lambda row: row["recovered_mean"]).svg.count(">87.5%</text>") == len(rows)


def rows_with(ours: tuple[float, float, float]) -> list[Record]:
    """A small dictionary under topk, under omp, and with omp in the loop, beside a dense one at 0.2, 0.1 and 0.1."""
    others = dict.fromkeys(("never_fired", "recovered_zero", "recovered_mean", "retention"), NOTHING)

    def row(name: str, loop: str, coder: str, fvu: float) -> Record:
        return Record(
            {"name": name, "trained_with": loop, "coder": coder},
            {"fvu": Interval(fvu, fvu - 0.01, fvu + 0.01, Kind.HULL), **others},
            {"learned_values": 40, "network_values": 900 if coder == MLP else 0},
        )

    found = []
    for name, (encoded, pursued, learned) in {"dense": (0.2, 0.1, 0.1), "expander d=4": ours}.items():
        under = {"topk": encoded, MLP: 0.8 * encoded + 0.2 * pursued}
        found += [row(name, "topk", coder, under.get(coder, pursued)) for coder in CODERS]
        found += [row(name, "omp", coder, learned) for coder in CODERS[1:]]
    return found


def test_words_follow_the_numbers() -> None:
    gains, gap, networks = findings(rows_with((0.6, 0.3, 0.2)))[1:]
    assert "0.600 under topk, 0.540 under mlp, 0.300 under mp, 0.300 under omp, 0.300 under lasso; trained" in gains
    assert "trained with omp: 0.200 under omp and 0.200 under mlp." in gains
    assert "+0.400 under topk, +0.360 under mlp and +0.200 under omp on the same columns, +0.100 with omp in" in gap
    assert "of the gap 10% is the linear encoder's by the mlp and 50% by omp on the same columns, 75% with" in gap
    assert "900 for dense with its 40, 900 for expander d=4 with its 40." in networks
    assert "nothing (it grows) by omp on the same columns, all with" in findings(rows_with((0.3, 0.3, 0)))[2]
    assert "there is no clear gap" in findings(rows_with((0.21, 0.3, 0.2)))[2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"penalty": 0.0}, "penalty must be above 0"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"mlp_tokens": 255}, "mlp_tokens must be at least one batch of 256"),
        ({"degrees": ()}, "degrees must be different numbers of at least 1"),
        ({"synthetic": False}, "Give either the folder of a store"),
    ],
)
def test_settings_that_cannot_be(config: AmortisationConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)


def test_degrees_up_to_the_width_are_refused(config: AmortisationConfig, tmp_path: Path) -> None:
    here = dataclasses.replace(config, degrees=(96,), out=tmp_path / "refused")
    with pytest.raises(ExpanderError, match="degrees must be below the width of the activations, 96"):
        run(here, Notebook())
