"""The frontier on a few planted tokens, and inside a model of a few thousand parameters."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import load_language_model
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP
from expander_sae.errors import ExpanderError, StoppedError
from expander_sae.evaluation.quality import HeldOut, QualityConfig, quality_of
from expander_sae.evaluation.results import NOTHING, Kind
from expander_sae.reporting.report import csv_of, flat
from expander_sae.studies import compare, data
from expander_sae.studies.compare import EVALUATIONS, Comparison, Record, over_seeds
from expander_sae.studies.frontier import CONTESTANTS, compared, run
from expander_sae.studies.frontier.config import FrontierConfig
from expander_sae.studies.frontier.contestants import FAMILIES, REFERENCE, Contestant
from expander_sae.studies.frontier.report import report_of
from expander_sae.training import Trainee
from tests.studies.notebook import Notebook


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> FrontierConfig:
    return FrontierConfig(
        synthetic=True, degrees=(2, 6), n=64, k=3, tokens=512, batch=128, sub_vectors=(8,), seeds=(0, 1),
        evaluation_tokens=128, out=tmp_path_factory.mktemp("frontier") / "out",
    )  # fmt: skip


Result = Comparison[FrontierConfig]


@pytest.fixture(scope="module")
def result(config: FrontierConfig) -> Result:
    return compared(config, Notebook())


def rows_of(result: Result) -> list[Record]:
    return over_seeds(result.records, ("family", "name", "coder"))


def test_every_family_is_there_under_its_coders_and_seeds(config: FrontierConfig, result: Result) -> None:
    rows = rows_of(result)
    assert {row.labels["family"] for row in rows} == set(FAMILIES)
    assert len(result.records) == 2 * len(rows)
    coders: dict[str, set[str]] = {}
    for row in rows:
        coders.setdefault(str(row.labels["name"]), set()).add(str(row.labels["coder"]))
    for name, found in coders.items():
        usual = (
            {"topk", "omp"} if name.startswith(("dense n=", "dense rank", "pruned")) else {"topk", "candidates", "omp"}
        )
        ours = {"expander": {"omp"}, "readable": {"candidates", "omp"}}
        assert found == ours.get(name.split()[0], usual)


def test_costs_are_those_of_the_form(result: Result) -> None:
    m, n = 96, 64
    rows = {(row.labels["name"], row.labels["coder"]): row.counts for row in rows_of(result)}
    whole, description = rows[REFERENCE, "topk"], 6000
    assert whole["learned_values"] == n * m + n + m
    for name, least in {"dense int8": n * m, "dense int4": n * m // 2, "dense 2 bits": n * m // 4}.items():
        assert rows[name, "omp"]["learned_values"] == whole["learned_values"]
        assert least + n < rows[name, "omp"]["bytes_on_disk"] < least + description
    assert rows["expander d=6", "omp"]["learned_values"] == 6 * n + m
    assert rows["dense n=4", "omp"]["learned_values"] == 4 * m + m
    assert rows["dense n=4", "topk"]["learned_values"] == 4 * m + m + 4
    assert rows["pruned d=2", "topk"]["learned_values"] == 2 * n + n + m
    assert rows["dense rank 2", "topk"]["learned_values"] == 2 * (n + m) + n + m


def test_what_is_rounded_is_measured_rounded(config: FrontierConfig, result: Result) -> None:
    rows = {row.labels["name"]: row["fvu"].value for row in rows_of(result) if row.labels["coder"] == "omp"}
    assert rows["dense int8"] == pytest.approx(rows[REFERENCE], rel=0.02)
    assert rows["dense 2 bits"] != pytest.approx(rows[REFERENCE], rel=1e-3)
    sae = SparseAutoencoder.load(config.out / CONTESTANTS / "seed0-dense-2-bits")
    assert all(len(column.unique()) <= 4 for column in sae.dictionary.to_dense().T)


def test_a_second_run_measures_only_what_is_missing(
    config: FrontierConfig, result: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    measure, measured = data.PlantedData.measure, list[str]()

    def listening(self: Any, saes: Mapping[str, SparseAutoencoder], *rest: Any) -> Any:
        measured.extend(saes)
        return measure(self, saes, *rest)

    monkeypatch.setattr(compare, "train", lambda *_, **__: pytest.fail("done already"))
    monkeypatch.setattr(data.PlantedData, "measure", listening)
    notebook = Notebook()
    again = compared(here, notebook)
    assert all(outcome.startswith("found ") for outcome in notebook.outcomes)
    assert measured == []
    assert repr(rows_of(again)) == repr(rows_of(result))  # nan is not itself

    (here.out / EVALUATIONS / "seed1-pruned-d-6-omp.json").unlink()
    shutil.rmtree(here.out / CONTESTANTS / "seed1-pruned-d-6-omp")
    mended = compared(here, Notebook())
    assert repr(rows_of(mended)) == repr(rows_of(result))
    assert measured == ["seed1-dense-float16-topk", "seed1-pruned-d-6-omp"]


def test_a_killed_run_comes_to_what_an_uninterrupted_one_does(
    config: FrontierConfig, result: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = report_of(result)
    here, step, write, steps = dataclasses.replace(config, out=tmp_path / "out"), Trainee.step, Contestant.write_to, [0]

    def interrupted(self: Trainee, x: Any) -> Any:
        steps[0] += 1
        if steps[0] == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, x)

    def killed(self: Contestant, folder: Path) -> None:
        if self.name == "pruned d=6":
            raise KeyboardInterrupt
        write(self, folder)

    monkeypatch.setattr(Trainee, "step", interrupted)
    with pytest.raises(StoppedError, match="the same command goes on from there"):
        run(here, Notebook())
    monkeypatch.setattr(Trainee, "step", step)
    monkeypatch.setattr(Contestant, "write_to", killed)
    with pytest.raises(KeyboardInterrupt):
        run(here, Notebook())
    monkeypatch.setattr(Contestant, "write_to", write)
    resumed = run(here, Notebook())
    assert csv_of([flat(row) for row in resumed.rows]) == csv_of([flat(row) for row in whole.rows])
    assert resumed.pictures == whole.pictures
    assert {**resumed.to_json(), "seconds": {}} == {**whole.to_json(), "seconds": {}}


def test_other_settings_in_the_same_folder_are_refused(config: FrontierConfig, result: Result) -> None:
    with pytest.raises(ExpanderError, match=r"holds a frontier with k=3, not 4; give another folder"):
        run(dataclasses.replace(config, k=4), Notebook())


def test_the_report_has_every_number(config: FrontierConfig, result: Result) -> None:
    path, rows = report_of(result).write(config.out), rows_of(result)
    text = path.read_text()
    assert all(
        f"| {row.labels['name']} | {row.labels['coder']} | {row.counts['learned_values']:,} |" in text for row in rows
    )
    assert "Who wins where" in text
    with open(config.out / "frontier.csv") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["fvu"]) for line in lines] == [row["fvu"].value for row in rows]
    assert {line["recovered_mean"] for line in lines} == {""}
    content = json.loads((config.out / "frontier.json").read_text())
    assert len(content["rows"]) == len(rows)
    assert str(config.out) not in json.dumps(content)
    for name in ("values_fvu", "values_never_fired", "bytes_fvu", "bytes_never_fired"):
        assert (config.out / f"frontier_{name}.svg").read_text().startswith("<svg")
        assert (config.out / f"frontier_{name}.png").stat().st_size > 1000


def test_inside_a_language_model_what_it_loses_is_measured_and_what_features_tell(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"text": f"The river of day {n} was {n % 5} feet high, not {n * n}."}) for n in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    text = TextConfig(text=str(tmp_path / "text.jsonl"), context=64)
    language_model = load_language_model(str(tiny_model_folder))
    harvest(language_model, ["layers.1"], tokens=600, out=tmp_path / "acts", text=text)
    config = FrontierConfig(
        store=tmp_path / "acts", degrees=(2,), n=32, k=3, batch=64, sub_vectors=(4,), evaluation_tokens=150,
        readability=True, text_tokens=400, features=4, out=tmp_path / "out",
    )  # fmt: skip
    read, texts = HeldOut.read, list[Any]()
    monkeypatch.setattr(HeldOut, "read", lambda *rest, **named: texts.append(read(*rest, **named)) or texts[-1])
    result = compared(config, Notebook())
    losses = {(each.labels["name"], each.labels["coder"]): each for each in result.records}
    assert all(each["retention"].kind == Kind.DOCUMENTS for each in losses.values())
    reference, ours = losses[REFERENCE, "topk"], losses["expander d=2", "omp"]
    assert reference["clean"] == ours["clean"]
    assert reference["patched"] != ours["patched"]
    report = report_of(result)
    report.write(config.out)
    assert str(tmp_path) not in (config.out / "frontier.json").read_text()

    assert len(texts) == 1
    found = quality_of(
        SparseAutoencoder.load(config.out / CONTESTANTS / "seed0-readable-d-2").with_coder(OMP(3)), texts[0],
        config=QualityConfig(features=4, ranks=False, effects=0),
    )  # fmt: skip
    assert losses["readable d=2", "omp"]["token_r2"] == found.measures["token_r2"]
    assert {"fvu_token_r2", "values_token_r2", "bytes_coherence"} <= report.pictures.keys()
    assert any("Nothing of as few bytes is better both by FVU and by token R2 than" in each for each in report.findings)

    held_out = dataclasses.replace(text, part="held-out")
    harvest(language_model, ["layers.1"], tokens=200, out=tmp_path / "held", text=held_out)
    elsewhere = dataclasses.replace(
        config, held_out=tmp_path / "held", readability=False, out=tmp_path / "without model"
    )
    without = compared(elsewhere, Notebook())
    assert all(each["clean"] is NOTHING for each in without.records)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"synthetic": False}, "Give either the folder of a store with --store or --synthetic"),
        ({"store": Path("acts")}, "one of the two"),
        ({"held_out": Path("acts")}, "leave --held-out off"),
        ({"degrees": ()}, "degrees must be different numbers of at least 1"),
        ({"degrees": (0, 2)}, "degrees must be different numbers of at least 1"),
        ({"seeds": (1, 1)}, "seeds must be different numbers of at least 0"),
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"fine_tune": 0.0}, "fine_tune must be above 0 and at most 1"),
        ({"labels": (Path(__file__),)}, "give --readability with --labels"),
    ],
)
def test_settings_that_cannot_be(config: FrontierConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)


def test_planted_activations_cannot_be_read(config: FrontierConfig, tmp_path: Path) -> None:
    here = dataclasses.replace(config, readability=True, out=tmp_path / "refused")
    with pytest.raises(ExpanderError, match="Planted activations have no text to read; give a store with --store"):
        run(here, Notebook())
    assert not here.out.exists()


def test_work_is_that_of_the_form_and_the_coder(result: Result) -> None:
    work = {(row.labels["name"], row.labels["coder"]): row.counts["multiply_adds"] for row in rows_of(result)}
    m, n, k, d = 96, 64, 3, 6
    assert work[REFERENCE, "topk"] == work["dense 2 bits", "topk"] == n * m + k * m
    assert work["readable d=6", "candidates"] == n * d + k * d + 6 * d + sum(
        step * 3 + step * step for step in (1, 2, 3)
    )
    assert work["readable d=6", "omp"] == work["expander d=6", "omp"] > work["readable d=6", "candidates"]
    assert work["dense n=4", "topk"] == 4 * m + k * m
    assert work["dense rank 2", "topk"] == round(2 * (n + m) / n) * (n + k)


def test_degrees_up_to_the_width_are_refused_before_anything_is_written(config: FrontierConfig, tmp_path: Path) -> None:
    here = dataclasses.replace(config, degrees=(2, 96), out=tmp_path / "refused")
    with pytest.raises(ExpanderError, match="degrees must be below the width of the activations, 96"):
        run(here, Notebook())
    assert not here.out.exists()
