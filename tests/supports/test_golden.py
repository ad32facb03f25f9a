"""Rows of released constructions, frozen: files store a recipe and a hash instead of rows."""

import json
from pathlib import Path

import pytest

from expander_sae.supports import Support, constructions

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: "{construction}-{m}-{n}-{d}".format(**case["recipe"]))
def test_rows_never_change(case):
    support = Support.from_recipe(case["recipe"])
    changed = (
        f"The rows of {support!r} changed. Rows of a released construction must never change: files store only the "
        f"recipe and this hash. Undo the change, or give the new rows a new name. Got {support.sha256}, "
        f"feature 0 is now {support.column(0).tolist()}."
    )
    assert support.column(0).tolist() == case["feature_0"], changed
    assert support.sha256 == case["sha256"], changed
    assert support.recipe == case["recipe"], "The recipe of a file must be written as it was read."


def test_every_construction_is_frozen_at_two_sizes_and_with_all_its_choices():
    recipes = [case["recipe"] for case in GOLDEN]
    for name, construction in constructions().items():
        mine = [recipe for recipe in recipes if recipe["construction"] == name]
        assert len({(recipe["m"], recipe["n"], recipe["d"]) for recipe in mine}) >= 2, f"freeze two sizes of {name}"
        for parameter, description in construction.parameters.items():
            assert set(description.choices) <= {recipe["parameters"][parameter] for recipe in mine}
