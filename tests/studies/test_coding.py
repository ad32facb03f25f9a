"""Sparse coding in worlds of a few dozen columns."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae import means
from expander_sae.cli.main import main
from expander_sae.coders import CoordinateDescent
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import Interval
from expander_sae.studies import coding as coding
from expander_sae.studies.coding import CELLS, Task, measured
from expander_sae.studies.coding.config import (
    CODERS,
    DENSE,
    EXPANDER,
    KNOWN_CODES,
    KNOWN_DICTIONARY,
    LASSO,
    MLP,
    NEITHER,
    OMP,
    REFINED,
    RELU,
    TOPK,
    CodingConfig,
)
from expander_sae.studies.coding.learning import (
    GradientCodes,
    descended,
    first_dictionary,
    from_codes,
    new_encoder,
    restart,
    train_encoder,
    with_coder,
)
from expander_sae.studies.coding.report import SCORES, report_of, rows_of
from expander_sae.studies.coding.world import World, scores_of
from expander_sae.studies.compare import Record, over_many_seeds
from expander_sae.studies.encoders import LinearEncoder, MLPEncoder, keep_largest
from tests.studies.notebook import Notebook


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CodingConfig:
    return CodingConfig(
        m=12, n=24, d=4, k=2, hidden=16, samples=512, tokens=1024, solver_tokens=256, batch=64, test_tokens=200,
        steps=20, seeds=(0, 1), out=tmp_path_factory.mktemp("coding") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def records(config: CodingConfig) -> list[Record]:
    return measured(config, Notebook())[0]


def test_everybody_is_there_in_every_world_and_setting(config: CodingConfig, records: list[Record]) -> None:
    found = [tuple(record.labels[name] for name in ("truth", "setting", "coder", "seed")) for record in records]
    assert len(found) == len(set(found)) == 2 * 3 * 7 * 2
    for record in records:
        given = record.labels["setting"] == KNOWN_DICTIONARY
        assert math.isnan(record["features"].value) == given
        scores = [name for name in SCORES if name != "error" and not (given and name == "features")]
        assert all(0 <= record[name].value <= 1.0001 for name in scores)
        assert record["inference"].value > 0
        assert (record["training"].value > 0) == (not given or record.labels["coder"] in (TOPK, REFINED, RELU, MLP))


def test_solvers_on_the_true_dictionary_find_most_of_the_codes(config: CodingConfig, records: list[Record]) -> None:
    rows = {(row.labels["truth"], row.labels["setting"], row.labels["coder"]): row for row in rows_of(config, records)}
    for coder in (OMP, LASSO):
        assert rows[DENSE, KNOWN_DICTIONARY, coder]["codes"].value > 0.93
        assert rows[DENSE, KNOWN_DICTIONARY, coder]["codes"].value > rows[DENSE, KNOWN_DICTIONARY, TOPK]["codes"].value
    assert math.isnan(rows[DENSE, KNOWN_DICTIONARY, OMP]["features"].value)
    assert rows[DENSE, KNOWN_CODES, OMP]["features"].value > 0.99


def test_the_truth_has_perfect_scores_in_any_order(config: CodingConfig) -> None:
    world = World.draw(config, EXPANDER, 0)
    order = torch.randperm(config.n, generator=torch.Generator().manual_seed(0))
    columns, codes = world.dictionary.to_dense().detach().T[order], world.test.codes[:, order]
    scores = scores_of(world, columns, torch.zeros(config.m), codes)
    assert (scores.precision, scores.recall) == (1, 1)
    assert (scores.features, scores.codes) == (pytest.approx(1), pytest.approx(1))
    assert scores.error == pytest.approx(config.noise**2, rel=0.2)


def test_what_diverged_is_refused_in_a_sentence(config: CodingConfig) -> None:
    world = World.draw(config, DENSE, 0)
    columns = torch.full((config.n, config.m), math.nan)
    with pytest.raises(ExpanderError, match="smaller learning rate"):
        scores_of(world, columns, torch.zeros(config.m), world.test.codes)


def test_more_steps_than_the_days_allow_are_refused(config: CodingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.draw(config, DENSE, 0)
    monkeypatch.setenv(means.DAYS, "0.00001")
    monkeypatch.setattr(means, "_MEASURED", 0.0)
    with pytest.raises(ExpanderError, match="gradient steps for a batch of codes would take"):
        descended(world.dictionary, world.test.x, torch.zeros_like(world.test.codes), 2**62, 0.1)


def test_missing_and_superfluous_features_are_told_apart(config: CodingConfig) -> None:
    world = World.draw(config, DENSE, 0)
    columns = world.dictionary.to_dense().detach().T
    single = keep_largest(world.test.codes, 1)
    few = scores_of(world, columns, torch.zeros(config.m), single)
    assert (few.precision, few.recall) == (1, 0.5)
    many = scores_of(world, columns, torch.zeros(config.m), world.test.codes + 0.5)
    assert (many.precision, many.recall) == (pytest.approx(2 / 24), 1)
    silent = scores_of(world, columns, torch.zeros(config.m), torch.zeros_like(world.test.codes))
    assert (silent.codes, silent.precision, silent.recall) == (0, 0, 0)


@pytest.mark.parametrize("truth", [DENSE, EXPANDER])
def test_enough_gradient_steps_solve_the_lasso(config: CodingConfig, truth: str) -> None:
    world = World.draw(config, truth, 0)
    dictionary, x = world.dictionary.double(), world.test.x[:20].double()
    exact = CoordinateDescent(0.1, gap=1e-9)(dictionary, x).to_dense()
    close = descended(dictionary, x, torch.zeros_like(exact), 1000, 0.1)
    assert torch.allclose(close, exact, atol=1e-3)
    assert torch.allclose(descended(dictionary, x, exact, 5, 0.1), exact, atol=1e-3)
    most = GradientCodes(config.n, 1000, 0.1)(dictionary, x).to_dense()
    assert torch.allclose(most, close)


@pytest.mark.parametrize("truth", [DENSE, EXPANDER])
def test_columns_follow_from_codes(config: CodingConfig, truth: str) -> None:
    world = World.draw(config, truth, 0)
    learned = from_codes(config, truth, world.train).dictionary
    alike = (learned.to_dense() * world.dictionary.to_dense()).sum(dim=0).detach()
    assert float(alike.min()) > 0.98
    assert isinstance(learned, ExpanderDictionary) == (truth == EXPANDER)


@pytest.mark.parametrize("truth", [DENSE, EXPANDER])
def test_any_coder_can_teach_a_dictionary_of_the_kind_of_the_truth(config: CodingConfig, truth: str) -> None:
    world, coder = World.draw(config, truth, 0), GradientCodes(6, 20, 0.1)
    learned = with_coder(config, truth, 0, world.train, coder, 6)
    again = with_coder(config, truth, 0, world.train, coder, 6)
    assert torch.equal(learned.dictionary.to_dense(), again.dictionary.to_dense())
    assert torch.allclose(learned.dictionary.norms(), torch.ones(config.n), atol=1e-5)
    assert float(learned.offset.abs().max()) < 1
    entries = (learned.dictionary.to_dense() != 0).sum(dim=0)
    assert set(entries.tolist()) == {config.entries(truth)}  # which is what costs are made of


@pytest.mark.parametrize("setting", [KNOWN_CODES, KNOWN_DICTIONARY, NEITHER])
@pytest.mark.parametrize("coder", [TOPK, RELU, MLP])
def test_only_what_is_not_known_is_learned(config: CodingConfig, coder: str, setting: str) -> None:
    world = World.draw(config, EXPANDER, 0)
    dictionary = first_dictionary(config, EXPANDER, 0, world.train)
    encoder = new_encoder(config, coder, dictionary, 0)
    assert isinstance(encoder, MLPEncoder if coder == MLP else LinearEncoder)
    before = dictionary.to_dense().detach().clone(), encoder(world.test.x).detach()
    train_encoder(config, setting, coder, encoder, dictionary, world.train)
    assert torch.equal(dictionary.to_dense(), before[0]) == (setting != NEITHER)
    assert not torch.allclose(encoder(world.test.x), before[1])
    assert torch.allclose(dictionary.norms(), torch.ones(config.n), atol=1e-5)


@pytest.mark.parametrize("truth", [DENSE, EXPANDER])
def test_dead_features_begin_anew_in_dictionary_and_encoder(config: CodingConfig, truth: str) -> None:
    world = World.draw(config, truth, 0)
    dictionary = first_dictionary(config, truth, 0, world.train)
    encoder = new_encoder(config, TOPK, dictionary, 0)
    assert isinstance(encoder, LinearEncoder)
    before = dictionary.to_dense().detach().clone()
    with torch.no_grad():
        encoder.bias[3] = -5.0
    residual = torch.zeros(4, config.m)
    residual[1] = world.train.x[7]
    restart(dictionary, encoder, torch.tensor([3]), residual, world.train, 0)
    after = dictionary.to_dense().detach()
    assert [j for j in range(config.n) if not torch.equal(before[:, j], after[:, j])] == [3]
    assert torch.allclose(after[:, 3], encoder.columns.to_dense()[:, 3])
    assert float(after[:, 3] @ world.train.x[7]) > 0.5 * float(world.train.x[7].norm())
    assert encoder.bias[3].item() == 0


def test_a_second_run_learns_only_what_is_missing(config: CodingConfig, records: list[Record], tmp_path: Path) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    notebook = Notebook()
    assert measured(here, notebook)[0] == records
    assert notebook.outcomes[0].startswith("found ")
    assert notebook.total is None

    path = here.out / CELLS / "expander-neither-topk-seed1.json"
    path.unlink()
    notebook = Notebook()
    assert measured(here, notebook)[0] == records  # to the last bit, refined codes as well
    assert notebook.counted == [notebook.total] == [200]

    path.write_text('{"topk": {"scores": {}, "inference": 1, "training": 1}}')
    with pytest.raises(ExpanderError, match=r"expander-neither-topk-seed1\.json was edited or damaged; delete it"):
        measured(here, Notebook())


def test_tasks_have_files_of_their_own(config: CodingConfig) -> None:
    tasks = [
        Task(config, truth, setting, learner, seed)
        for truth in config.truths
        for setting in config.settings
        for learner in coding.LEARNERS
        for seed in (0, 1, 11)
    ]
    assert len({task.path for task in tasks}) == len(tasks)


def test_other_settings_in_the_same_folder_are_refused(config: CodingConfig, records: list[Record]) -> None:
    with pytest.raises(ExpanderError, match=r"holds a study of sparse coding with k=2, not 3"):
        measured(dataclasses.replace(config, k=3), Notebook())


def test_the_report_has_every_number(config: CodingConfig, records: list[Record]) -> None:
    text, rows = report_of(config, records, {"code": 1}).write(config.out).read_text(), rows_of(config, records)
    assert len(rows) == 2 * 3 * 7
    assert all(
        f"| {row.labels['truth']}, {str(row.labels['setting']).removeprefix('known ')} | {row.labels['coder']} |"
        in text
        for row in rows
    )
    assert "How to read this" in text
    with open(config.out / "coding.csv") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["codes"]) for line in lines] == [row["codes"].value for row in rows]
    assert {line["features"] for line in lines if line["setting"] == KNOWN_DICTIONARY} == {""}
    content = json.loads((config.out / "coding.json").read_text())
    assert len(content["rows"]) == len(rows)
    assert str(config.out) not in json.dumps(content)
    for truth in (DENSE, EXPANDER):
        for name in ("known_codes", "known_dictionary", "neither"):
            assert (config.out / f"coding_{name}_{truth}_codes.svg").read_text().startswith("<svg")
        assert (config.out / f"coding_neither_{truth}_columns.png").stat().st_size > 1000


def test_intervals_are_students() -> None:
    found = over_many_seeds([Interval.bare(number) for number in (1.0, 2.0, 3.0)])
    assert found.value == 2
    assert found.half_width == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert math.isnan(over_many_seeds([Interval.bare(1.0)]).low)


def test_the_command_prints_every_coder(config: CodingConfig, records: list[Record], capsys: Any) -> None:
    arguments = (
        "--m 12 --n 24 --d 4 --k 2 --hidden 16 --samples 512 --tokens 1024 --solver-tokens 256 --batch 64 "
        "--test-tokens 200 --steps 20 --seeds 0 1"
    )
    main(["study", "coding", *arguments.split(), "--out", str(config.out)])
    printed = " ".join(capsys.readouterr().out.split())
    assert all(coder in printed for coder in CODERS)
    assert "a gap of" in printed
    assert "The report is" in printed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"truths": ()}, "truths must be different ones of dense, expander"),
        ({"known": ("codes", "codes")}, "known must be different ones of codes, dictionary, neither"),
        ({"seeds": (1, 1)}, "seeds must be different numbers of at least 0"),
        ({"hidden": 0}, "hidden must be at least 1, not 0"),
        ({"d": 13}, "d at most m = 12"),
        ({"k": 25}, "k must be at most n = 24"),
        ({"samples": 10}, "must be at least one batch of 64"),
        ({"construction": "bricks"}, "construction must be one of uniform, "),
        ({"penalty": 0.0}, "penalty must be above 0 and at most 1"),
    ],
)
def test_settings_that_cannot_be(config: CodingConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)


def test_a_support_that_cannot_be_is_refused_before_anything_is_written(config: CodingConfig, tmp_path: Path) -> None:
    here = dataclasses.replace(config, construction="lines", d=3, n=100, out=tmp_path / "refused")
    with pytest.raises(ExpanderError, match="'lines' has at most"):
        measured(here, Notebook())
    assert not here.out.exists()
