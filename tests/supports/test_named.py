"""Constructions by short names."""

from __future__ import annotations

import pytest

from expander_sae.supports import SupportError, named
from expander_sae.training import TrainConfig


def test_a_name_stands_for_a_construction_and_its_first_parameter() -> None:
    assert named("uniform") == ("uniform", {})
    assert named("clustered:16") == ("clustered", {"cluster_size": 16})
    assert named("block:4") == ("block", {"blocks": 4})


@pytest.mark.parametrize("name", ["uniform:3", "clustered:", "clustered:many", "clustered:-2"])
def test_a_number_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(SupportError, match="needs a whole number behind the colon, which only lines, clustered, block"):
        named(name)


def test_a_dictionary_in_training_has_the_name_as_part_of_its_own() -> None:
    assert TrainConfig(n=64, d=4, k=3, construction="clustered:16").name == "clustered-16-d4-n64-omp3"
    with pytest.raises(SupportError, match="needs a whole number"):
        TrainConfig(n=64, d=4, k=3, construction="uniform:16")
