"""Who wins where, from rows made up by hand."""

from __future__ import annotations

import math

import pytest

from expander_sae.evaluation.results import NOTHING, Interval, Kind
from expander_sae.studies.compare import Record
from expander_sae.studies.frontier.contestants import EXPANDER, FEWER, PRUNED, READABLE
from expander_sae.studies.frontier.report import findings, map_of, measures_of, pictures_of, verdict_table, verdicts


def around(value: float, half: float = 0.02) -> Interval:
    return Interval(value, value - half, value + half, Kind.HULL)


def row(family: str, name: str, values: int, size: int, fvu: Interval, recovered: Interval = NOTHING) -> Record:
    shares = {"recovered_zero": recovered, "recovered_mean": recovered, "retention": recovered}
    return Record(
        {"family": family, "name": name, "coder": "omp"},
        {"fvu": fvu, "never_fired": around(0.1, 0), **shares},
        {"learned_values": values, "bytes_on_disk": size},
    )


OURS = row(EXPANDER, "expander d=7", 1000, 4000, around(0.40))


@pytest.mark.parametrize(
    ("rival", "of_values", "of_bytes"),
    [
        (row(FEWER, "dense n=9", 1000, 1500, around(0.60)), "expander", "expander"),
        (row(FEWER, "dense n=9", 1000, 1500, around(0.30)), "rival", "rival"),
        (row(FEWER, "dense n=9", 1000, 1500, around(0.43)), "unclear", "unclear"),
        (row(FEWER, "dense n=9", 1050, 4201, around(0.60)), "expander", "no rival as small"),
        (row(PRUNED, "pruned d=7", 1051, 4200, around(0.30)), "no rival as small", "rival"),
        (row(FEWER, "dense n=9", 1000, 1500, Interval(0.43, math.nan, math.nan, Kind.HULL)), "expander", "expander"),
    ],
)
def test_the_verdict_is_that_of_the_intervals_at_no_more_than_the_size(
    rival: Record, of_values: str, of_bytes: str
) -> None:
    found = verdicts([OURS, rival])
    assert [(each.budget, each.outcome) for each in found] == [("learned values", of_values), ("bytes", of_bytes)]


def test_the_best_of_the_rivals_is_compared_by_either_measure() -> None:
    ours = row(EXPANDER, "expander d=7", 1000, 4000, around(0.40), around(0.70))
    rows = [
        ours,
        row(FEWER, "dense n=9", 900, 1500, around(0.50), around(0.90)),
        row(PRUNED, "pruned d=7", 1000, 4000, around(0.30), around(0.60)),
    ]
    by_values = [each for each in verdicts(rows) if each.budget == "learned values"]
    assert [(each.measure.name, each.rival.labels["name"] if each.rival else "") for each in by_values] == [
        ("fvu", "pruned d=7"),
        ("recovered", "dense n=9"),
    ]
    assert [each.outcome for each in by_values] == ["rival", "rival"]


def test_sentences_name_who_wins_where() -> None:
    rows = [
        OURS,
        row(EXPANDER, "expander d=32", 4000, 9000, around(0.35)),
        row(FEWER, "dense n=9", 1000, 1500, around(0.60)),
        row(PRUNED, "pruned d=32", 4000, 9000, around(0.25)),
    ]
    of_values, of_bytes = findings(rows)
    assert of_values.startswith("At equal learned values")
    assert "the expander dictionary wins at d=7; another wins at d=32 (pruned)." in of_values
    assert of_bytes.endswith("the expander dictionary wins at d=7; another wins at d=32 (pruned).")
    assert len(verdict_table(rows).rows) == 4


def test_without_a_language_model_only_what_was_measured_is_compared() -> None:
    assert [measure.name for measure in measures_of([OURS])] == ["fvu", "never_fired"]


def read(record: Record, r2: float) -> Record:
    """The same with what its features tell a reader."""
    return record.with_measures({"token_r2": around(r2), "coherence_strongest": around(r2 + 0.1)})


def test_readability_is_a_measure_of_who_wins_and_of_what_nothing_beats() -> None:
    rows = [
        read(OURS, 0.05),
        read(row(READABLE, "readable d=7", 1000, 4000, around(0.45)), 0.35),
        read(row(FEWER, "dense n=9", 1000, 1500, around(0.60)), 0.20),
        read(row(PRUNED, "pruned d=7", 1000, 4000, around(0.55)), 0.15),
    ]
    said = {each.split(":")[0]: each for each in findings(rows)}
    by_values = said["At equal learned values, by token R2 of features"]
    assert by_values.endswith("wins at readable d=7; another wins at d=7 (fewer columns).")
    assert findings(rows)[-1].endswith(
        "better both by FVU and by token R2 than expander d=7 under omp, readable d=7 under omp, dense n=9 under omp."
    )
    assert {"fvu_token_r2", "fvu_coherence", "values_token_r2"} <= pictures_of(rows).keys()
    assert ">readable expander, omp</text>" in map_of(rows, measures_of(rows)[-1]).svg
