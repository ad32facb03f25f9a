"""Recovery on dictionaries of a few dozen columns."""

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

from expander_sae.cli.main import main
from expander_sae.errors import ExpanderError
from expander_sae.files import read_checked, write_checked
from expander_sae.studies import recovery as recovery
from expander_sae.studies.recovery import (
    CELLS,
    Certificates,
    RecoveryResult,
    coder_of,
    decoded,
    exact_tokens,
    make_dictionary,
    planted_codes,
)
from expander_sae.studies.recovery.config import CODERS, RecoveryConfig
from expander_sae.studies.recovery.report import (
    CONDITION,
    clopper_pearson,
    curves_of,
    falls_through,
    report_of,
    rows_of,
)
from tests.studies.notebook import Notebook


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RecoveryConfig:
    return RecoveryConfig(
        m=40, d=4, n_over_m=(1.5, 4.0), k_over_m=(0.025, 0.1, 0.8), tokens=8,
        dictionaries=("uniform", "lines", "dense"), out=tmp_path_factory.mktemp("recovery") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(config: RecoveryConfig) -> RecoveryResult:
    return decoded(config, Notebook())


def test_every_dictionary_meets_every_coder_where_both_exist(config: RecoveryConfig, result: RecoveryResult) -> None:
    found = {(strip.dictionary, strip.n, strip.coder) for strip in result.strips}
    expected = {(name, n, coder) for name in ("uniform", "dense") for n in (60, 160) for coder in CODERS}
    expected = {each for each in expected if each[::2] != ("dense", "voting")} | {("lines", 60, c) for c in CODERS}
    assert found == expected
    assert list(result.absent) == [("lines", 160)]


def test_one_feature_is_found_by_all_and_too_many_by_none(result: RecoveryResult) -> None:
    for strip in result.strips:
        fewest, most = strip.recovered[0], strip.recovered[-1]
        assert most == 0
        assert strip.recovered.index(0) == len(strip.recovered) - 1  # larger k are not tried
        # Votes of two columns that share all coordinates but one are never safe, so they need more than there are.
        assert fewest == 8 or strip.coder == "voting"
    assert [
        strip.recovered[0] for strip in result.strips if strip.coder == "voting" and strip.dictionary == "lines"
    ] == [8]


def test_the_same_codes_are_planted_for_all_and_others_in_every_cell(config: RecoveryConfig) -> None:
    one, again, other = (planted_codes(config, 60, k) for k in (4, 4, 6))
    assert torch.equal(one.indices, again.indices)
    assert torch.equal(one.values, again.values)
    assert not torch.equal(one.indices, other.indices[:, :4])
    assert all(len(set(token.tolist())) == 4 for token in one.indices)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("shape", "low", "high"), [("flat", 1, 1), ("uniform", 0.5, 1.5), ("gaussian", 0, 9)])
def test_coefficients_are_as_asked_for(
    config: RecoveryConfig, shape: Any, low: float, high: float, signed: bool
) -> None:
    planted = planted_codes(dataclasses.replace(config, coefficients=shape, signed=signed, tokens=200), 60, 6)
    sizes = planted.values.abs()
    assert low <= float(sizes.min()) <= float(sizes.max()) <= high
    assert bool((planted.values < 0).any()) == signed


def test_a_token_counts_only_if_nothing_is_missing_or_too_much(config: RecoveryConfig) -> None:
    dictionary = make_dictionary(config, "dense", 60)
    known = Certificates(0.5, 1, 0, 5, None, [1])
    with torch.no_grad():
        assert exact_tokens(config, dictionary, 3, coder_of(config, "omp", 3, known)) == config.tokens
        assert exact_tokens(config, dictionary, 3, coder_of(config, "omp", 2, known)) == 0
        assert exact_tokens(config, dictionary, 3, coder_of(config, "mp", 3, known)) == config.tokens


def test_columns_of_equal_size_need_one_vote_more_than_they_share(
    result: RecoveryResult, config: RecoveryConfig
) -> None:
    assert result.certificates["lines", 60].agree == 2
    assert (result.certificates["uniform", 160].agree or 0) > 2
    assert result.certificates["dense", 60].agree is None
    gaussian = dataclasses.replace(config, columns="gaussian")
    assert recovery.certificates_of(gaussian, make_dictionary(gaussian, "uniform", 160)).agree == 2


def test_a_second_run_decodes_only_what_is_missing(
    config: RecoveryConfig, result: RecoveryResult, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    notebook = Notebook()
    assert decoded(here, notebook).strips == result.strips
    assert notebook.outcomes[0].startswith("found ")
    assert notebook.total is None

    (here.out / CELLS / "uniform-n60-omp.json").unlink()
    notebook = Notebook()
    assert decoded(here, notebook).strips == result.strips
    assert notebook.counted == [notebook.total] == [3 * 8]

    (here.out / CELLS / "uniform-n60-omp.json").write_text('{"active": [1], "recovered": [8]}')
    with pytest.raises(ExpanderError, match=r"uniform-n60-omp\.json was edited or damaged; delete it"):
        decoded(here, Notebook())
    (here.out / CELLS / "uniform-n60-omp.json").write_text("{")
    with pytest.raises(ExpanderError, match="edited or damaged"):
        decoded(here, Notebook())


def test_other_settings_in_the_same_folder_are_refused(config: RecoveryConfig, result: RecoveryResult) -> None:
    with pytest.raises(ExpanderError, match=r"holds a study of recovery with tokens=8, not 9"):
        decoded(dataclasses.replace(config, tokens=9), Notebook())


def test_the_report_has_every_number(config: RecoveryConfig, result: RecoveryResult) -> None:
    text, rows = report_of(result).write(config.out).read_text(), rows_of(result)
    assert all(strip.coder in text for strip in result.strips)
    assert "lines has no n = 4 m" in text
    with open(config.out / "recovery.csv") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["recovered"]) for line in lines] == [row["recovered"] for row in rows]
    assert all(float(line["exact_low"]) <= float(line["exact"]) <= float(line["exact_high"]) for line in lines)
    content = json.loads((config.out / "recovery.json").read_text())
    assert len(content["rows"]) == len(rows) == sum(len(strip.recovered) for strip in result.strips)
    assert len(content["half"]) == len(result.strips)
    assert str(config.out) not in json.dumps(content)
    svg = (config.out / "recovery_phases.svg").read_text()
    assert svg.startswith("<svg")
    assert "density evolution" in svg
    assert "exact recovery condition" in svg
    assert "exact recovery condition: on half of the random sets" in text
    (known, *_) = content["certificates"]
    assert known["condition"][0] == config.sets
    assert 1 / 40 < known["condition_half"]["k_over_m"] < 0.8
    assert (config.out / "recovery_phases.png").stat().st_size > 1000


def test_clopper_pearson_intervals_have_their_known_ends() -> None:
    none, half, all_of_them = (clopper_pearson(count, 20) for count in (0, 10, 20))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert (half.low, half.high) == (pytest.approx(0.272, abs=1e-3), pytest.approx(0.728, abs=1e-3))
    assert (all_of_them.low, all_of_them.high) == (pytest.approx(0.025 ** (1 / 20)), 1)


def test_where_shares_fall_through_a_level() -> None:
    places = [0.01, 0.1, 1.0]
    assert falls_through(0.5, places, [1, 0.75, 0.25]) == pytest.approx(math.sqrt(0.1))
    assert falls_through(0.5, places, [0.4, 0.9, 0.1]) == 0
    assert falls_through(0.5, places, [0.9, 0.9, 0.5]) == math.inf


def test_the_command_prints_where_recovery_ends(config: RecoveryConfig, result: RecoveryResult, capsys: Any) -> None:
    arguments = "--m 40 --d 4 --n-over-m 1.5 4.0 --k-over-m 0.025 0.1 0.8 --tokens 8 --dictionaries uniform lines dense"
    main(["study", "recovery", *arguments.split(), "--out", str(config.out)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "found" in printed
    assert all(coder in printed for coder in CODERS)
    assert "The report is" in printed


def test_shares_that_round_to_the_same_size_count_once(config: RecoveryConfig) -> None:
    assert dataclasses.replace(config, k_over_m=(0.001, 0.02, 0.03, 0.1)).active == [1, 4]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dictionaries": ("lines", "bricks")}, "dictionaries must be different ones of uniform, "),
        ({"coders": ("omp", "omp")}, "coders must be different ones of topk, mp, omp, lasso, voting"),
        ({"n_over_m": (2.0, 1.0)}, "n_over_m must be ascending numbers above 0"),
        ({"k_over_m": ()}, "k_over_m must be ascending numbers above 0, at least one"),
        ({"k_over_m": (0.1, 1.6)}, "the smallest dictionary has only 60 features"),
        ({"d": 41}, "d must be at most m = 40"),
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"sets": 0}, "sets must be at least 1"),
        ({"agree": 1}, "agree must be at least 2"),
        ({"penalty": 0.0}, "penalty must be above 0"),
    ],
)
def test_settings_that_cannot_be(config: RecoveryConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)


def test_a_certificate_without_its_counts_is_damaged(
    config: RecoveryConfig, result: RecoveryResult, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "copy")
    shutil.copytree(config.out, here.out)
    path = here.out / CELLS / "uniform-n60-theory.json"
    write_checked(path, {**read_checked(path), "condition": []})
    with pytest.raises(ExpanderError, match=r"uniform-n60-theory\.json was edited or damaged"):
        decoded(here, Notebook())


@pytest.mark.parametrize("signed", [True, False])
def test_without_signs_the_condition_says_nothing_about_omp(
    config: RecoveryConfig, result: RecoveryResult, signed: bool
) -> None:
    here = dataclasses.replace(result, config=dataclasses.replace(config, signed=signed))
    drawn = {coder: [curve.label for curve in curves_of(here, [], "uniform", coder)] for coder in CODERS[:4]}
    assert [coder for coder in CODERS[:4] if CONDITION in drawn[coder]] == (["omp", "lasso"] if signed else ["lasso"])


def test_every_seed_that_is_allowed_plants_codes_of_its_own() -> None:
    seeds = (0, 1, 2**24, 2**31, 2**32 - 1)
    planted = [planted_codes(RecoveryConfig(seed=seed, tokens=4), 16, 2).values for seed in seeds]
    assert len({tuple(each.flatten().tolist()) for each in planted}) == len(seeds)
