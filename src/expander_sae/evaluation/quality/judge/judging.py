"""Judging features: an explanation of each, how well it foretells where the feature fires, and how coherent it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.intervals import Reading
from expander_sae.evaluation.quality.judge import prompts
from expander_sae.evaluation.quality.judge.client import Costs, Judge, Question
from expander_sae.evaluation.quality.reading import CONTEXTS, in_random_order, strongest_first
from expander_sae.evaluation.quality.results import ShownContext
from expander_sae.evaluation.quality.showing import context_of
from expander_sae.evaluation.results import Interval

EACH = 5
"""Excerpts in which a feature fires, and as many in which it does not, of a test of its explanation."""


@dataclass(frozen=True)
class Exhibit:
    """What a judge sees of one feature."""

    feature: int
    strongest: list[ShownContext]
    mixed: list[ShownContext]
    """Firings drawn at random and silent excerpts, in random order."""
    fires: list[bool]
    """Which of those are which."""
    marks: list[ShownContext]
    """Firings drawn at random, some with another token marked than that on which the feature fires."""
    right: list[bool]
    """Which of the marks are right."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one feature; nan where its answer could not be read."""

    feature: int
    explanation: str
    coherence: float
    """From 1 to 5."""
    detection: float
    """Share of excerpts told right, with those that fire and those that do not counted equally."""
    fuzzing: float
    """The same for marks."""


def exhibits_of(held_out: HeldOut, firings: csc_array, features: Sequence[int], seed: int) -> list[Exhibit]:
    """What a judge is shown of these features."""
    generator = np.random.default_rng(seed)
    return [_exhibit(held_out, firings, feature, generator) for feature in features]


def _exhibit(held_out: HeldOut, firings: csc_array, feature: int, generator: np.random.Generator) -> Exhibit:
    document = held_out.document

    def shown(tokens: NDArray[np.int64]) -> list[ShownContext]:
        return [context_of(held_out, firings, feature, int(token)) for token in tokens]

    strongest = shown(strongest_first(firings, document, feature)[:CONTEXTS])
    drawn = in_random_order(firings, document, feature, generator)
    firing, marks = shown(drawn[:EACH]), shown(drawn[EACH : 3 * EACH])
    silent = _silent(held_out, firings, feature, generator)
    order = generator.permutation(len(firing) + len(silent)).tolist()
    right = [number % 2 == 0 for number in range(len(marks))]
    return Exhibit(
        feature,
        strongest,
        [[*firing, *silent][place] for place in order],
        [place < len(firing) for place in order],
        [each if is_right else _wrong(each, generator) for each, is_right in zip(marks, right, strict=True)],
        right,
    )


def _silent(held_out: HeldOut, firings: csc_array, feature: int, generator: np.random.Generator) -> list[ShownContext]:
    """Excerpts in which the feature fires nowhere."""
    found = list[ShownContext]()
    for token in generator.permutation(len(held_out.place))[: 20 * EACH].tolist():
        context = context_of(held_out, firings, feature, token)
        if not any(context.activations):
            found.append(context)
        if len(found) == EACH:
            break
    return found


def _wrong(context: ShownContext, generator: np.random.Generator) -> ShownContext:
    """The same excerpt with a token marked on which the feature is silent, if there is one."""
    silent = [place for place, value in enumerate(context.activations) if value == 0 and context.tokens[place].strip()]
    return replace(context, peak=int(generator.choice(silent))) if silent else context


def first_questions(exhibits: Sequence[Exhibit]) -> Iterator[Question]:
    """What can be asked of every feature before anything was answered."""
    for exhibit in exhibits:
        yield prompts.explain(exhibit.strongest)
        yield prompts.rate(exhibit.strongest)


def costs_of(judge: Judge, exhibits: Sequence[Exhibit]) -> Costs:
    """What judging will cost, less what was answered before."""
    questions = [question for question in first_questions(exhibits) if not judge.knows(question)]
    for exhibit in exhibits:
        explain = prompts.explain(exhibit.strongest)
        # The explanation is not known yet; one as long as it may be stands for it.
        explanation = judge.ask(explain) if judge.knows(explain) else "x" * 4 * explain.most
        tests = [prompts.detect(explanation, exhibit.mixed), prompts.fuzz(explanation, exhibit.marks)]
        questions += [question for question in tests if not judge.knows(question)]
    questions = list(dict.fromkeys(questions))
    letters = sum(len(question.prompt) for question in questions)
    return Costs(len(questions), letters, sum(question.most for question in questions))


def judge_features(judge: Judge, exhibits: Sequence[Exhibit], report: Callable[[int], None]) -> list[Verdict]:
    """A verdict on every feature; answers are kept as they come, so that nothing is asked twice."""
    verdicts = []
    for number, exhibit in enumerate(exhibits, 1):
        explanation = " ".join(judge.ask(prompts.explain(exhibit.strongest)).split())
        rating = prompts.rating_in(judge.ask(prompts.rate(exhibit.strongest)))
        detected = judge.ask(prompts.detect(explanation, exhibit.mixed))
        fuzzed = judge.ask(prompts.fuzz(explanation, exhibit.marks))
        verdicts.append(
            Verdict(
                exhibit.feature,
                explanation,
                math.nan if rating is None else float(rating),
                balanced_accuracy(prompts.numbers_in(detected, len(exhibit.mixed)), exhibit.fires),
                balanced_accuracy(prompts.numbers_in(fuzzed, len(exhibit.marks)), exhibit.right),
            )
        )
        report(number)
    return verdicts


def balanced_accuracy(said: set[int] | None, truth: Sequence[bool]) -> float:
    """Excerpts, numbered from 1, that were told right: the mean of the shares of true ones and of false ones."""
    if said is None or all(truth) or not any(truth):
        return math.nan
    told = np.array([number in said for number in range(1, len(truth) + 1)])
    right = told == np.array(truth)
    return float((right[np.array(truth)].mean() + right[~np.array(truth)].mean()) / 2)


def judged(verdicts: Sequence[Verdict]) -> dict[str, Interval]:
    """The means over features."""
    names = ("coherence", "detection", "fuzzing")
    values = {name: np.array([getattr(verdict, name) for verdict in verdicts], dtype=np.float64) for name in names}
    return {f"judge_{name}": Reading(each, np.empty(0)).interval() for name, each in values.items()}
