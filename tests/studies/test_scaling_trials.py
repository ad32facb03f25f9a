"""Laws on trial, and what they say that choices change."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from expander_sae.evaluation.results import Interval, Kind
from expander_sae.studies.compare import Record
from expander_sae.studies.scaling.config import FACTORS, Grid
from expander_sae.studies.scaling.law import CORNER, Trials, choices, holdouts_of, put_on_trial, shapes, twice
from expander_sae.studies.scaling.report import findings, formula

GRID = Grid((96, 192, 384), (4, 8, 16), (2, 4, 8), (1000, 2000, 4000))
PLACES = np.array(list(itertools.product(GRID.n, GRID.k, GRID.d, GRID.tokens)), dtype=float)


def errors(exponents: tuple[float, ...], *, noise: float = 0.0, floor: float = 0.0) -> np.ndarray:
    """A product of powers, a quarter at the middle, with a floor."""
    shares = np.exp((np.log(PLACES) - np.log(PLACES).mean(axis=0)) @ np.array(exponents))
    off = np.exp(noise * np.random.default_rng(0).standard_normal(len(PLACES)))
    return np.asarray((0.25 * shares + floor) * off)


def cell(place: tuple[float, ...], error: float, told: float) -> Record:
    """A cell of the grid that the law of the others says to have another error."""
    labels = {name: int(value) for name, value in zip(FACTORS, place, strict=True)}
    bare = {"never_fired": 0.0, "predicted": told, "miss": told / error - 1}
    measures = {"fvu": Interval(error, error, error, Kind.HULL), **{name: Interval.bare(bare[name]) for name in bare}}
    return Record(labels, measures, {"learned_values": labels["n"] * labels["d"]})


def rows_of(trials: Trials) -> list[Record]:
    """Cells with the predictions of the best law."""
    said = np.exp(trials.best.left_out)
    return [
        cell((n, k, d, tokens), error, tell)
        for (n, k, d, tokens), error, tell in zip(PLACES, np.exp(trials.measured), said, strict=True)
    ]


@pytest.fixture(scope="module")
def powers() -> Trials:
    return put_on_trial(FACTORS, PLACES, errors((-0.4, -0.5, -0.1, -0.2), noise=0.01))


def test_true_laws_are_right_about_cells_that_they_have_not_seen(powers: Trials) -> None:
    true = powers.best
    assert true.law.form.name == "powers"
    assert powers.misses(true).mean < 0.02
    for holdout in powers.holdouts:
        misses = powers.beyond(true, holdout)
        assert misses is not None
        assert misses.worst < 0.06
    for name, wanted in zip(FACTORS, (-0.4, -0.5, -0.1, -0.2), strict=True):
        low, high = true.interval([law.named()[name] for law in true.drawn])
        assert low < true.law.named()[name] < high
        assert low - 0.01 < wanted < high + 0.01


def test_the_form_that_fits_is_chosen() -> None:
    floored = put_on_trial(FACTORS, PLACES, errors((-1.0, -0.8, -0.5, -0.6), floor=0.05))
    assert floored.best.law.form.name == "powers over a floor"
    assert floored.best.law.named()["floor"] == pytest.approx(0.05, rel=0.05)


def test_a_cell_that_is_left_out_has_no_say() -> None:
    wrong = errors((-0.4, -0.5, -0.1, -0.2))
    wrong[7] *= 3
    found = put_on_trial(FACTORS, PLACES, wrong)
    assert np.exp(found.trials[0].left_out[7]) == pytest.approx(wrong[7] / 3)
    assert found.misses(found.trials[0]).worst == pytest.approx(2 / 3)
    assert not np.isclose(np.exp(found.trials[0].law.logs(found.places))[7], wrong[7] / 3)


def test_holdouts_keep_the_largest_values_back() -> None:
    found = {each.name: each for each in holdouts_of(FACTORS, PLACES)}
    assert list(found) == [*FACTORS, CORNER]
    assert (PLACES[found["k"].foretold, 1] == 16).all()
    assert found["k"].known.sum() == 54
    assert PLACES[found[CORNER].foretold].tolist() == [[384, 16, 8, 4000]]
    assert (PLACES[found[CORNER].known] < [384, 16, 8, 4000]).all()
    two = PLACES[PLACES[:, 0] < 384]
    assert [each.name for each in holdouts_of(FACTORS, two)] == ["k", "d", "tokens", CORNER]


def test_what_a_choice_changes_is_what_the_law_says(powers: Trials) -> None:
    bought = twice(powers, "tokens", powers.middle)
    assert bought.value == pytest.approx(2**-0.2, abs=0.01)
    assert bought.low < bought.value < bought.high < 1
    found = shapes(powers, GRID)
    assert found is not None
    assert (found.few.n, found.few.d, found.many.n, found.many.d) == pytest.approx((96, 8, 384, 2))
    assert found.best == found.many
    assert found.ratio.value == pytest.approx(4**-0.3, abs=0.02)
    counted = choices(rows_of(powers))
    assert (counted.groups, counted.many) == (27, 27)
    assert counted.named == 27


def test_words_follow_the_numbers(powers: Trials) -> None:
    law, beyond, *bought, shape, measured = findings(rows_of(powers), powers, GRID)
    assert law.startswith("The law, of 4 tried on 81 cells: FVU = 0.250 (n/192)^-0.39")
    assert "without the largest tokens by" in beyond
    assert len(bought) == 4
    assert bought[3].startswith("Twice the tokens, in the middle of the grid: FVU times 0.87")
    assert "an effect of 12." in bought[3]
    assert "the law makes n=384 columns of d=2" in shape
    assert "many short columns" in shape
    assert "does not carry" not in shape
    assert "the best in 27 of 27 groups" in measured


def test_words_say_what_the_law_does_not_carry() -> None:
    trials = put_on_trial(FACTORS, PLACES, errors((-0.3, -0.5, -0.3, 0.0), noise=0.05))
    *_, k, _, tokens, shape, _ = findings(rows_of(trials), trials, GRID)
    assert "so the law does not say whether it helps" in tokens
    assert "which the law does not carry: the interval reaches over 1" in tokens
    assert "an effect of 2" in k
    assert "the law does not carry this" in shape


def test_factors_of_one_value_drop_out_and_two_are_not_tested() -> None:
    small = Grid((96, 192, 384), (8,), (2, 4), (1000,))
    places = np.array(list(itertools.product(small.n, small.d)), dtype=float)
    trials = put_on_trial(("n", "d"), places, 30 / places[:, 0] * places[:, 1] ** -0.5)
    rows = [cell((n, 8, d, 1000), 1.0, 1.0) for n, d in places]
    said = findings(rows, trials, small)
    assert said[1] == "Not in the law, for the grid holds one value of each: k = 8, tokens = 1,000."
    assert [each.name for each in trials.holdouts] == ["n"]
    assert said[4].startswith("Twice the values per column d")
    assert said[4].endswith("which nothing here tests.")
    assert "(k/" not in formula(trials.best.law, trials)


def test_formulas_are_read_as_they_are() -> None:
    floored = put_on_trial(FACTORS, PLACES, errors((-1.0, -0.8, -0.5, -0.6), floor=0.05))
    crossed, constant, rising = (formula(each.law, floored) for each in floored.trials[1:])
    assert "log(n) log(k)" in crossed
    assert crossed.endswith("where log is of the factor over its middle")
    assert constant.endswith("(tokens/2,000)^-0.600 + 0.050")
    assert "+ 0.050 (k/8)^" in rising
