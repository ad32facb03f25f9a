"""Laws are found back from what they say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.studies.scaling.law import Form, Law, fit, forms_of

FACTORS = ("n", "k", "d", "tokens")
exponents = st.lists(st.floats(-1.0, -0.05), min_size=4, max_size=4)
crossings = st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6)


def grid(levels: int = 3, factors: int = 4) -> np.ndarray:
    """Places a factor of two apart, around the middle."""
    steps = (np.arange(levels) - (levels - 1) / 2) * np.log(2)
    return np.array(list(itertools.product(steps, repeat=factors)))


@settings(deadline=None, max_examples=25)
@given(exponents, st.floats(-3, -0.1))
def test_exponents_are_found_back(wanted: list[float], middle: float) -> None:
    form, places = Form("powers", FACTORS), grid()
    found = fit(form, places, Law(form, np.array([middle, *wanted])).logs(places))
    assert found.parameters == pytest.approx([middle, *wanted], abs=1e-9)
    assert found.named() == pytest.approx({"middle": np.exp(middle), **dict(zip(FACTORS, wanted, strict=True))})


@settings(deadline=None, max_examples=25)
@given(exponents, crossings)
def test_interactions_are_found_back(wanted: list[float], crossed: list[float]) -> None:
    form, places = Form("crossed", FACTORS, pairs=True), grid()
    truth = Law(form, np.array([-1.0, *wanted, *crossed]))
    assert fit(form, places, truth.logs(places)).parameters == pytest.approx(truth.parameters, abs=1e-9)
    assert form.parameters[5:7] == ("n × k", "n × d")
    one_off = np.array([[0.7, 0.4, 0.0, 0.0]])
    expected = -1.0 + 0.7 * wanted[0] + 0.4 * wanted[1] + 0.28 * crossed[0]
    assert truth.logs(one_off)[0] == pytest.approx(expected)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-1.0, -0.3), min_size=4, max_size=4), st.floats(0.02, 0.2), st.floats(-0.3, 0.3))
def test_a_floor_is_found_back(wanted: list[float], floor: float, falling: float) -> None:
    places = grid()
    for name, power in (((), []), (("k",), [falling])):
        form = Form("floor", FACTORS, floor=name)
        truth = Law(form, np.array([np.log(0.2), *wanted, np.log(floor), *power]))
        found = fit(form, places, truth.logs(places))
        assert found.logs(places) == pytest.approx(truth.logs(places), abs=1e-4)
        assert found.named()["floor"] == pytest.approx(floor, rel=0.02)
        assert found.parameters[1:5] == pytest.approx(wanted, abs=0.02)


def test_a_floor_is_what_is_left_when_all_else_is_endless() -> None:
    form = Form("floor", ("n", "k"), floor=("k",))
    law = Law(form, np.array([0.0, -0.5, -0.5, np.log(0.1), -0.25]))
    assert np.exp(law.logs(np.array([[60.0, 0.0]]))[0]) == pytest.approx(0.1)
    assert np.exp(law.logs(np.array([[60.0, np.log(16)]]))[0]) == pytest.approx(0.05)


def test_a_floor_that_is_not_there_stays_away() -> None:
    powers, places = Form("powers", FACTORS), grid()
    logs = Law(powers, np.array([-1.0, -0.3, -0.6, -0.2, -0.1])).logs(places)
    found = fit(Form("floor", FACTORS, floor=()), places, logs)
    assert found.named()["floor"] < 0.01 * np.exp(logs.min())
    assert found.logs(places) == pytest.approx(logs, abs=1e-3)


def test_least_squares_are_no_worse_from_several_starts_than_from_the_truth() -> None:
    form, places = Form("floor", FACTORS, floor=("k",)), grid()
    truth = Law(form, np.array([-1.6, -0.5, -0.6, -0.2, -0.1, -2.5, -0.2]))
    noisy = truth.logs(places) + 0.02 * np.random.default_rng(1).standard_normal(len(places))

    def squares(law: Law) -> float:
        return float(np.square(law.logs(places) - noisy).sum())

    assert squares(fit(form, places, noisy)) <= squares(fit(form, places, noisy, start=truth)) + 1e-6
    assert squares(fit(form, places, noisy)) < squares(truth)


def test_forms_are_those_that_the_cells_can_carry() -> None:
    assert [len(form.parameters) for form in forms_of(FACTORS, 81)] == [5, 11, 6, 7]
    assert [form.name for form in forms_of(FACTORS, 7)] == ["powers", "powers over a floor"]
    assert [form.parameters for form in forms_of(("tokens",), 9)] == [
        ("middle", "tokens"),
        ("middle", "tokens", "floor"),
    ]
