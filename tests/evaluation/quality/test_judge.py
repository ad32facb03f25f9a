"""A judge is asked what it should be, its answers are read as they are meant, and nothing that it said is lost."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import HeldOut
from expander_sae.evaluation.quality.firings import firings_of
from expander_sae.evaluation.quality.judge import prompts
from expander_sae.evaluation.quality.judge.client import KEY, TRIES, Judge, Question
from expander_sae.evaluation.quality.judge.judging import (
    Exhibit,
    balanced_accuracy,
    costs_of,
    exhibits_of,
    judge_features,
    judged,
)
from tests.evaluation.quality.judge_server import agreeable, judge_server
from tests.evaluation.subjects import random

QUESTION = Question("What is a river?", 20)


def patient(url: str, file: Path | None = None) -> Judge:
    """A judge that is asked again at once."""
    return Judge(url, "small", file, sleep=lambda seconds: None)


@pytest.fixture(scope="module")
def exhibits(held_out: HeldOut) -> list[Exhibit]:
    """Three features of a random dictionary."""
    sae = random(16)
    sae.fit_scale(held_out.x)
    firings = firings_of(sae, held_out.x)
    return exhibits_of(held_out, firings, np.argsort(-np.diff(firings.indptr))[8:11].tolist(), 0)


def test_a_question_is_asked_once_whatever_happens_in_between(tmp_path: Path) -> None:
    with judge_server(lambda prompt: "Water that runs.") as server:
        assert patient(server.url, tmp_path / "a.jsonl").ask(QUESTION) == "Water that runs."
        again = patient(server.url, tmp_path / "a.jsonl")
        assert again.knows(QUESTION)
        assert again.ask(QUESTION) == "Water that runs."
        assert len(server.asked) == 1
        (body,) = server.asked
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("small", 0, 20)
    assert not Judge(server.url, "another", tmp_path / "a.jsonl").knows(QUESTION)


def test_a_line_that_was_cut_short_is_asked_again_and_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with judge_server(lambda prompt: f"An answer to {prompt}") as server:
        judge = patient(server.url, file)
        for name in ("one", "two"):
            judge.ask(Question(name, 5))
        file.write_text(file.read_text()[:-20])
        judge = patient(server.url, file)
        assert judge.knows(Question("one", 5))
        assert not judge.knows(Question("two", 5))
        judge.ask(Question("three", 5))
    back = patient(server.url, file)
    assert [back.knows(Question(name, 5)) for name in ("one", "two", "three")] == [True, False, True]


@pytest.mark.parametrize(
    ("answer", "reason", "times"),
    [
        (503, "status 503", TRIES),
        (401, "status 401", 1),
        (b"not json", "no answer of the form", TRIES),
        (b'{"choices": []}', "no answer of the form", TRIES),
        (b'{"choices": [{"message": {"content": null}}]}', "no answer of the form", TRIES),
    ],
)
def test_a_judge_that_fails_is_a_sentence(answer: int | bytes, reason: str, times: int, tmp_path: Path) -> None:
    with judge_server(lambda prompt: answer) as server:
        with pytest.raises(ExpanderError, match=reason) as raised:
            patient(server.url, tmp_path / "a.jsonl").ask(QUESTION)
        assert len(server.asked) == times
    assert "0 answers are kept in" in str(raised.value)


def test_a_judge_that_is_not_there_is_a_sentence() -> None:
    with judge_server(agreeable) as server:
        pass
    with pytest.raises(ExpanderError, match="does not answer"):
        patient(server.url).ask(QUESTION)


def test_a_judge_that_recovers_is_waited_for() -> None:
    replies = iter([503, 429, "At last."])
    waited = list[float]()
    with judge_server(lambda prompt: next(replies)) as server:
        assert Judge(server.url, "small", sleep=waited.append).ask(QUESTION) == "At last."
    assert waited == [2.0, 4.0]


@pytest.mark.parametrize(("url", "model"), [("localhost:80", "a"), ("ftp://a/v1", "a"), ("http://a/v1", "")])
def test_an_address_that_is_none_is_refused(url: str, model: str) -> None:
    with pytest.raises(ExpanderError, match="give"):
        Judge(url, model)


def test_the_key_is_sent_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with judge_server(lambda prompt: "yes") as server:
        patient(server.url).ask(QUESTION)
        monkeypatch.setenv(KEY, "secret")
        patient(server.url).ask(QUESTION)
    assert server.keys == [None, "Bearer secret"]


def test_what_a_judge_is_shown(held_out: HeldOut, exhibits: list[Exhibit]) -> None:
    for exhibit in exhibits:
        assert all(context.activations[context.peak] != 0 for context in exhibit.strongest)
        strengths = [abs(context.activations[context.peak]) for context in exhibit.strongest]
        assert strengths == sorted(strengths, reverse=True)
        for context, fires in zip(exhibit.mixed, exhibit.fires, strict=True):
            assert any(context.activations) == fires
        for context, right in zip(exhibit.marks, exhibit.right, strict=True):
            assert (context.activations[context.peak] != 0) == right
        shown = prompts.marked(exhibit.strongest[0])
        assert shown.count("<<") == shown.count(">>") == 1


def test_verdicts_are_read_from_the_answers(exhibits: list[Exhibit], tmp_path: Path) -> None:
    with judge_server(agreeable) as server:
        judge = patient(server.url, tmp_path / "a.jsonl")
        costs = costs_of(judge, exhibits)
        assert 4 <= costs.questions <= 4 * len(exhibits)  # features with the same contexts share a question
        assert f"{costs.questions} questions" in str(costs)
        verdicts = judge_features(judge, exhibits, lambda done: None)
        assert len(server.asked) == len(set(server.prompts)) <= costs.questions
        assert sum(map(len, server.prompts)) <= costs.letters
        assert costs_of(judge, exhibits).questions == 0
    for verdict, exhibit in zip(verdicts, exhibits, strict=True):
        assert verdict.explanation == "Tokens about rivers."
        assert verdict.coherence == 4
        assert verdict.detection == balanced_accuracy({1, 3}, exhibit.fires)
    assert judged(verdicts)["judge_coherence"].value == 4
    assert not any("random" in prompt or "dictionary" in prompt for prompt in server.prompts)


def test_what_cannot_be_read_is_blank(exhibits: list[Exhibit]) -> None:
    with judge_server(lambda prompt: "I would rather not say.") as server:
        (verdict, *_) = judge_features(patient(server.url), exhibits[:1], lambda done: None)
    assert math.isnan(verdict.coherence)
    assert math.isnan(verdict.detection)
    assert math.isnan(verdict.fuzzing)


def test_a_judge_that_dies_halfway_goes_on_where_it_was(exhibits: list[Exhibit], tmp_path: Path) -> None:
    left = iter(range(5))
    with judge_server(lambda prompt: agreeable(prompt) if next(left, None) is not None else 500) as server:
        with pytest.raises(ExpanderError, match="5 answers are kept"):
            judge_features(patient(server.url, tmp_path / "a.jsonl"), exhibits, lambda done: None)
        failed = len(server.asked)
        server.answer = agreeable
        verdicts = judge_features(patient(server.url, tmp_path / "a.jsonl"), exhibits, lambda done: None)
        assert len(set(server.prompts[failed:])) == len(server.asked) - failed
        assert not set(server.prompts[failed:]) & set(server.prompts[:5])
        questions = len(set(server.prompts))
    assert len(verdicts) == len(exhibits)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len({json.loads(line)["asked"] for line in lines}) == len(lines) == questions


@pytest.mark.parametrize(
    ("answer", "numbers", "rating"),
    [
        ("1, 4", {1, 4}, None),
        ("4", {4}, 4),
        ("0", set(), None),
        ("none", None, None),
        ("11", None, None),
        ("12", None, None),  # two digits that follow one another are no rating either
        ("Rating: 5.", {5}, 5),
        ("1. the old wooden bridge\n2. the river", None, None),
        ("1. row, reader in mathematics", None, None),
    ],
)
def test_answers_are_read(answer: str, numbers: set[int] | None, rating: int | None) -> None:
    assert prompts.numbers_in(answer, 10) == numbers
    assert prompts.rating_in(answer) == rating


def test_balanced_accuracy_counts_both_kinds_alike() -> None:
    truth = [True, True, True, True, False]
    assert balanced_accuracy({1, 2, 3, 4, 5}, truth) == 0.5
    assert balanced_accuracy({1, 2, 3, 4}, truth) == 1.0
    assert balanced_accuracy({1, 2}, truth) == 0.75
    assert math.isnan(balanced_accuracy(None, truth))
    assert math.isnan(balanced_accuracy({1}, [True, True]))
