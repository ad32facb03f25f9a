"""The sentences of the report, from evaluations made up by hand: they say what the numbers say."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from expander_sae.evaluation.results import Evaluation, Interval, Kind, LanguageModelLoss, Scope
from expander_sae.studies.compare import Record, measures_of, read_evaluations, write_evaluations
from expander_sae.studies.demo.config import DemoConfig
from expander_sae.studies.demo.report import Compared, cautions, notes, summary
from expander_sae.training import TrainConfig

UNKNOWN = Interval(math.nan, math.nan, math.nan, Kind.DOCUMENTS)


def around(value: float, half: float = 0.02) -> Interval:
    return Interval(value, value - half, value + half, Kind.DOCUMENTS)


def evaluation(values: int, retention: Interval | None, explained: float = 0.5) -> Evaluation:
    loss = LanguageModelLoss(
        clean=around(3.1), patched=around(3.6), zero=around(11.0), mean=around(9.5), kl=around(0.4),
        recovered_zero=around(0.9), recovered_mean=around(0.85), retention_zero=retention, retention_mean=retention,
    )  # fmt: skip
    return Evaluation(
        name="any", coder="topk:16", tokens=8000, documents=40, passed_through={"special": 1, "massive": 25},
        fvu=around(1 - explained), explained_variance=around(explained), cosine=around(0.9), l0=around(16, 0),
        never_fired=0.1, density=[0] * 24, learned_values=values, language_model=loss, setting={"text": "python"},
    )  # fmt: skip


def result(first: Interval | None, matched: Interval | None, matched_values: int = 1010) -> Any:
    """What the sentences look at."""

    def compared(d: int | None, n: int, found: Evaluation) -> Compared:
        record = Record({}, measures_of(found), {"learned_values": found.learned_values})
        return Compared(TrainConfig(n=n, d=d, k=4, objective="fidelity"), record, [], 0)

    return SimpleNamespace(
        config=DemoConfig(train_tokens=3000),
        store=SimpleNamespace(tokens=1000),
        scope=Scope(8000, 40, {}, {}),
        first=compared(7, 128, evaluation(1000, first, 0.41)),
        dense=compared(None, 128, evaluation(73_000, around(1.0, 0), 0.73)),
        matched=compared(None, 4, evaluation(matched_values, matched)),
    )


@pytest.mark.parametrize(
    ("first", "matched", "verdict"),
    [
        (around(0.80), around(0.70), "retains 70 % (68 to 72): at this size, sparse columns keep more."),
        (around(0.70), around(0.80), "few dense columns keep more."),
        (around(0.70), around(0.72), "no clear difference at this size."),
        (around(0.70), UNKNOWN, "retains an unknown share."),
        (Interval.bare(0.7), Interval.bare(0.9), "retains 90 %."),
        (None, None, "retains an unknown share."),
    ],
)
def test_the_summary_takes_no_side_that_the_intervals_do_not(
    first: Interval | None, matched: Interval | None, verdict: str
) -> None:
    assert summary(result(first, matched)).endswith(verdict)


def test_the_summary_says_what_the_compression_costs() -> None:
    words = summary(result(around(0.8), around(0.7)))
    assert "73 times smaller than the dense one (1,000 learned values against 73,000)" in words
    assert "explains 41 % (39 to 43) of the variance of held-out activations, the dense one 73 % (71 to 75)" in words
    assert "retains 80 % (78 to 82) of the loss that the dense one recovers" in words
    assert "cut down to 4 columns, about as few values," in words


def test_a_control_of_another_size_is_called_that() -> None:
    assert "4 columns, 3.7 times as many values as the expander one," in summary(result(None, None, 3700))


def test_notes_and_cautions_carry_the_numbers() -> None:
    found = result(around(0.8), around(0.7))
    assert any("40 evaluated documents" in note for note in notes(found))
    assert any("3.100 nats a token; 11.000 with zeros and 9.500 with the mean" in note for note in notes(found))
    assert any("3,000 tokens, 3.0 passes over 1,000;" in caution for caution in cautions(found))


def test_evaluations_survive_the_disk(tmp_path: Any) -> None:
    there = {"a": evaluation(10, around(0.5)), "b": evaluation(20, None)}
    write_evaluations(tmp_path / "evaluation.json", there)
    assert read_evaluations(tmp_path / "evaluation.json") == there


def test_what_is_not_a_number_survives_too(tmp_path: Any) -> None:
    write_evaluations(tmp_path / "evaluation.json", {"a": evaluation(10, UNKNOWN)})
    loss = read_evaluations(tmp_path / "evaluation.json")["a"].language_model
    assert loss is not None
    assert loss.retention_mean is not None
    assert math.isnan(loss.retention_mean.low)
