"""What makes features readable, on a model of a few thousand parameters."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, Candidates
from expander_sae.dictionaries import DenseDictionary
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import HeldOut, Quality, QualityConfig, quality_of
from expander_sae.evaluation.quality.keeping import kept
from expander_sae.evaluation.results import NOTHING, Interval, Kind
from expander_sae.reporting.report import Report
from expander_sae.studies import compare, readability
from expander_sae.studies.compare import EVALUATIONS, READABILITY, TRAINED, Comparison, Record, over_seeds
from expander_sae.studies.readability import FOLDER, TEXT
from expander_sae.studies.readable import AGAIN, compared, run
from expander_sae.studies.readable.config import CODERS, QUICK, ReadableConfig
from expander_sae.studies.readable.priced import PricedPursuit
from expander_sae.studies.readable.report import BY, called, findings, map_of, report_of
from expander_sae.studies.study import read_reports
from tests.studies.notebook import Notebook
from tests.studies.texts import stores_in

Result = tuple[Comparison[ReadableConfig], list[Quality]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> ReadableConfig:
    folder = tmp_path_factory.mktemp("readable")
    store, held_out = stores_in(folder, tiny_model_folder)
    return ReadableConfig(
        store=store, held_out=held_out, degrees=(3,), n=48, k=4, batch=64, tokens=1280, evaluation_tokens=300,
        text_tokens=1200, features=6, out=folder / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(config: ReadableConfig) -> Result:
    return compared(config, Notebook())


@pytest.fixture(scope="module")
def report(result: Result) -> Report:
    return report_of(*result)


def rows_of(result: Result) -> list[Record]:
    return over_seeds(result[0].records, BY)


def test_every_dictionary_meets_the_coders_that_are_asked_of_it(result: Result) -> None:
    found: dict[str, list[str]] = {}
    for row in rows_of(result):
        found.setdefault(called(row), []).append(str(row.labels["coder"]))
    assert found == {
        "dense, fidelity, topk": list(QUICK),
        "d=3, pruned rows, readable": list(CODERS),
        "d=3, moved rows, fidelity, omp": list(QUICK),
        "d=3, random rows, fidelity, topk": ["topk", "omp"],
        "d=3, moved rows, fidelity, topk": ["topk", "omp"],
    }
    own = {called(row): row.labels["coder"] for row in rows_of(result) if row.labels["own"]}
    assert own["d=3, pruned rows, readable"] == "refit"  # a sixteenth more than 4 are 4
    assert own["d=3, moved rows, fidelity, topk"] == "topk"


def test_each_is_read_under_its_coder_on_one_text(config: ReadableConfig, result: Result) -> None:
    sae = SparseAutoencoder.load(config.out / TRAINED / "learned-d3-n48-candidates4").with_coder(Candidates(4, 4))
    alone = quality_of(sae, kept(config.out / TEXT), config=QualityConfig(features=6, ranks=False, effects=0))
    record = next(each for each in result[0].records if each.is_called(rows="pruned", coder="refit"))
    assert alone.eligible > 0
    assert record["token_r2"] == alone.measures["token_r2"]
    assert record["fire_often"].value == alone.eligible / 48
    assert all(each["l0"].value <= 4 for each in result[0].records)
    few = next(each for each in result[0].records if each.is_called(rows="pruned", coder="few picks"))
    assert few["l0"].value <= 1


def test_rows_that_moved_stay_where_they_are_when_one_product_is_trained_on_them(
    config: ReadableConfig, result: Result
) -> None:
    assert result[0].config == config  # they are on disk by then
    before = SparseAutoencoder.load(config.out / TRAINED / "learned-d3-n48-omp4").dictionary
    after = SparseAutoencoder.load(config.out / AGAIN / "learned-d3-again-n48-topk4").dictionary
    assert torch.equal(before.to_dense() != 0, after.to_dense() != 0)
    assert not torch.equal(before.to_dense(), after.to_dense())


def test_a_second_run_does_only_what_is_missing(
    config: ReadableConfig, result: Result, report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, measured = dataclasses.replace(config, out=tmp_path / "copy"), list[str]()
    shutil.copytree(config.out, here.out)
    quality_in = readability.quality_in

    def listening(scene: Any, sae: SparseAutoencoder, name: str) -> Quality:
        measured.append(name)
        return quality_in(scene, sae, name)

    monkeypatch.setattr(compare, "train", lambda *_, **__: pytest.fail("done already"))
    monkeypatch.setattr(HeldOut, "read", lambda *_, **__: pytest.fail("read already"))
    monkeypatch.setattr(readability, "quality_in", listening)
    notebook = Notebook()
    compared(here, notebook)
    assert all(outcome.startswith("found ") for outcome in notebook.outcomes)
    assert measured == []
    (here.out / FOLDER / "learned-d3-n48-omp4-under-few-picks.json").unlink()
    (here.out / EVALUATIONS / "dense-n48-topk4-under-wide.json").unlink()
    mended = compared(here, Notebook())
    assert measured == ["learned-d3-n48-omp4-under-few-picks"]
    again = report_of(*mended)
    assert again.pictures == report.pictures
    assert {**again.to_json(), "seconds": {}} == {**report.to_json(), "seconds": {}}
    (here.out / FOLDER / "learned-d3-n48-omp4-under-few-picks.json").write_text("{}")
    with pytest.raises(ExpanderError, match="was edited or damaged; delete it to have it made again"):
        compared(here, Notebook())
    with pytest.raises(ExpanderError, match=r"holds a study of readability with k=4, not 5"):
        run(dataclasses.replace(here, k=5), Notebook())


def test_the_report_has_every_number_and_can_be_bound(config: ReadableConfig, result: Result, report: Report) -> None:
    report.write(config.out)
    with open(config.out / "readable.csv") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["fvu"]) for line in lines] == [row["fvu"].value for row in rows_of(result)]
    content = json.loads((config.out / "readable.json").read_text())
    assert str(config.out.parent) not in json.dumps(content)
    assert {line["retention"] for line in lines} == {""}  # no language model was asked for its loss
    (there,) = read_reports(config.out, ["readable"])
    assert there.features is not None
    assert len(there.features.cards) >= 6
    assert list(there.pictures) == ["fvu_token_r2", "fvu_purity", "fvu_coherence_strongest", "measures"]


def test_inside_the_model_on_the_text_of_the_second_store_its_loss_is_measured(
    config: ReadableConfig, result: Result, tmp_path: Path
) -> None:
    """All that was trained is there, so only what is new is done."""
    inside = dataclasses.replace(config, inside=True, out=tmp_path / "inside")
    for name in (TRAINED, AGAIN, FOLDER):
        shutil.copytree(config.out / name, inside.out / name)
    shutil.copy(config.out / TEXT, inside.out / TEXT)
    comparison, _ = compared(inside, Notebook())
    one, other = (
        next(each for each in comparison.records if each.is_called(name="dense", coder=coder))
        for coder in ("topk", "omp")
    )
    assert one["clean"] == other["clean"]
    assert one["clean"].value > 0
    assert one["patched"] != other["patched"]
    assert other["retention"].kind == Kind.DOCUMENTS


def test_labels_are_probed_for_and_refused_before_anything_is_trained(
    config: ReadableConfig, result: Result, tmp_path: Path
) -> None:
    texts = [json.loads(line)["text"] for line in (config.store.parent / "held.jsonl").read_text().splitlines()]  # type: ignore[union-attr]
    labelled = tmp_path / "labels.jsonl"
    labelled.write_text("\n".join(json.dumps({"text": text, "spans": [[0, 9, "first"]]}) for text in texts))
    here = dataclasses.replace(config, labels=(labelled,), out=tmp_path / "labelled")
    for name in (TRAINED, AGAIN, EVALUATIONS):
        shutil.copytree(config.out / name, here.out / name)
    comparison, qualities = compared(here, Notebook())
    assert {probe.label for quality in qualities for probe in quality.probes} == {"first"}
    assert any(record["probe_1"].value > 0 for record in comparison.records)
    labelled.write_text(json.dumps({"text": "another", "spans": []}))
    with pytest.raises(ExpanderError, match="has no labels for 40 of the 40 documents"):
        compared(dataclasses.replace(here, out=tmp_path / "refused"), Notebook())
    assert not (tmp_path / "refused" / TRAINED).exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"store": None}, "give the folder of a store with --store"),
        ({"penalty": 0.0}, "penalty must be above 0"),
        ({"degrees": ()}, "degrees must be different numbers of at least 1"),
        ({"text_tokens": 0}, "text_tokens must be at least 1"),
        ({"labels": (Path("nowhere.jsonl"),)}, r"There is no file nowhere\.jsonl"),
        ({"held_out": None, "inside": True}, "leave --inside off"),
    ],
)
def test_settings_that_cannot_be(config: ReadableConfig, changes: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)


def test_degrees_up_to_the_width_are_refused(config: ReadableConfig, tmp_path: Path) -> None:
    here = dataclasses.replace(config, degrees=(16,), out=tmp_path / "refused")
    with pytest.raises(ExpanderError, match="degrees must be below the width of the activations, 16"):
        run(here, Notebook())
    assert not here.out.exists()


def test_a_price_leaves_as_many_picks_on_average_and_those_that_are_worth_most() -> None:
    generator = torch.Generator().manual_seed(0)
    dictionary = DenseDictionary(12, 40, generator=generator)
    x = torch.randn(50, 12, generator=generator) * torch.logspace(-1, 1, 50)[:, None]
    codes, all_picks = PricedPursuit(3)(dictionary, x), OMP(6)(dictionary, x)
    assert codes.l0.double().mean() <= 3
    assert codes.l0[-10:].double().mean() > codes.l0[:10].double().mean()  # one price: where there is more, more is had
    assert codes.l0.max() > 3
    worth = (all_picks.to_dense() * dictionary.norms()).square()
    kept = codes.to_dense() != 0
    assert worth[kept].min() >= worth[~kept].max() * 0.999 or (codes.l0.sum() < 150)
    residual = x - dictionary.synthesize(codes)
    gradients = dictionary.correlate(residual)[kept].abs().max()
    assert gradients < 1e-3 * x.abs().max()  # what stays is fitted again


def rows_with(fvu: float, r2: float) -> list[Record]:
    """Two dictionaries under every coder, with these numbers under all."""
    numbers = {"token_r2": Interval(r2, r2 - 0.1, r2 + 0.1, Kind.HULL_OF_FEATURES), "fvu": Interval.bare(fvu)}
    others = dict.fromkeys(set(READABILITY.values()) - numbers.keys(), NOTHING)
    return [
        Record(
            {"name": "dense", "rows": "dense", "trained_for": "fidelity, topk", "coder": coder, "own": coder == "topk"},
            {**others, **numbers},
        )
        for coder in CODERS
    ]


def test_words_follow_the_numbers() -> None:
    said = findings(rows_with(0.25, 0.5))
    assert said[0].startswith("Token R2 at FVU of the same columns, dense, fidelity, topk: 0.500 at 0.250 under topk,")
    assert "As they were trained (FVU, token R2, coherence): dense, fidelity, topk 0.250, 0.500, –." in said
    assert "Token R2 under omp, the best first: of none." in findings(rows_with(0.25, float("nan")))


def test_what_explains_nothing_is_left_out_of_the_map() -> None:
    rows = [*rows_with(0.25, 0.5)[:-1], rows_with(13.0, 0.5)[-1]]
    drawn = map_of(rows, "token R2", "token_r2").svg
    assert ">omp</text>" in drawn
    assert ">lasso</text>" not in drawn
