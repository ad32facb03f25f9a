"""What a judge is asked about a feature, and how its answers are read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from expander_sae.evaluation.quality.judge.client import Question
from expander_sae.evaluation.quality.results import ShownContext

OPEN, CLOSE = "<<", ">>"
"""What stands around a marked token."""
MOST_WORDS = 3
"""Of an answer that is asked for in numbers."""


def explain(contexts: Sequence[ShownContext]) -> Question:
    """What the marked tokens have in common."""
    return Question(
        "Below are excerpts of texts. In each of them one token is marked with << and >>; a feature of a neural "
        "network fires most strongly on it. Say in one short sentence what the marked tokens, or the texts around "
        "them, have in common. Be as specific as the excerpts allow. Answer with that sentence only.\n\n"
        + _listed([marked(context) for context in contexts]),
        80,
    )


def detect(explanation: str, contexts: Sequence[ShownContext]) -> Question:
    """Which excerpts the feature fires in, by its explanation."""
    return Question(
        f"A feature of a neural network is said to fire on this: {explanation}\n\nIn which of the excerpts below does "
        "it fire? Answer with their numbers, separated by commas, or with 0 if in none. Give no other words.\n\n"
        + _listed(["".join(context.tokens) for context in contexts]),
        60,
    )


def fuzz(explanation: str, contexts: Sequence[ShownContext]) -> Question:
    """Which marks are right, by the explanation."""
    return Question(
        f"A feature of a neural network is said to fire on this: {explanation}\n\nIn each excerpt below one token is "
        "marked with << and >>. In which excerpts is the marked token one that the feature fires on? Answer with their "
        "numbers, separated by commas, or with 0 if in none. Give no other words.\n\n"
        + _listed([marked(context) for context in contexts]),
        60,
    )


def rate(contexts: Sequence[ShownContext]) -> Question:
    """How coherent the contexts are; the judge is not told what they are of."""
    return Question(
        "Below are excerpts of texts, in each of which one token is marked with << and >>. How coherent are the marked "
        "tokens in their contexts? 1: nothing in common; 2: hardly anything; 3: a loose theme; 4: one idea with some "
        "exceptions; 5: one clear idea without exception. Answer with one digit only.\n\n"
        + _listed([marked(context) for context in contexts]),
        8,
    )


def marked(context: ShownContext) -> str:
    """The text with its chosen token marked."""
    words = [
        f"{OPEN}{token}{CLOSE}" if place == context.peak else token for place, token in enumerate(context.tokens)
    ]  # fmt: skip
    return "".join(words)


def _listed(texts: Sequence[str]) -> str:
    return "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(texts, 1))


def numbers_in(answer: str, most: int) -> set[int] | None:
    """The numbers of an answer; None if it has none, or one that no excerpt has, or goes on about something else."""
    found = {int(number) for number in re.findall(r"\d+", answer)}
    if not found or max(found) > most or _rambles(answer):
        return None
    return found - {0}


def rating_in(answer: str) -> int | None:
    """The one number from 1 to 5 of an answer; None if there is none or another, or it goes on about something else."""
    found = re.findall(r"\d+", answer)
    return int(found[0]) if len(found) == 1 and found[0] in set("12345") and not _rambles(answer) else None


def _rambles(answer: str) -> bool:
    """Whether there are more words than an answer in numbers may have: weak models repeat what they were shown."""
    return len(re.findall(r"[^\W\d_]+", answer)) > MOST_WORDS
