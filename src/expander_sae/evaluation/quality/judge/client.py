"""Asking a language model behind an OpenAI-compatible address, every answer kept on disk as soon as it is there."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from expander_sae.errors import ExpanderError

KEY = "EXPANDER_JUDGE_KEY"
"""The environment variable that holds the key of the address, if it wants one."""
TRIES, PAUSE, TIMEOUT = 3, 2.0, 120.0
"""How often a question is asked, seconds before it is asked again (twice as many each time), and for an answer."""
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which it helps to ask again."""
LETTERS_PER_TOKEN = 4
"""About as many, in English."""


@dataclass(frozen=True)
class Question:
    """What a judge is asked at once."""

    prompt: str
    most: int
    """Tokens of the answer, at most."""

    def body(self, model: str) -> dict[str, Any]:
        """What is sent."""
        messages = [{"role": "user", "content": self.prompt}]
        return {"model": model, "messages": messages, "temperature": 0, "max_tokens": self.most}


@dataclass
class Judge:
    """A model at an address, with the answers that it gave before."""

    url: str
    """Up to /v1, as in http://localhost:8080/v1."""
    model: str
    file: Path | None = None
    """A line for every answer; None to keep them for this run only."""
    sleep: Callable[[float], None] = time.sleep
    answers: dict[str, str] = field(default_factory=dict)
    """By the hash of what was asked."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ExpanderError(f"{self.url!r} is no address of a judge; give one such as http://localhost:8080/v1.")
        if not self.model:
            raise ExpanderError("A judge has a name at its address; give --judge-model.")
        self._cut_short = False
        if self.file is not None and self.file.exists():
            text = self.file.read_text(encoding="utf-8", errors="replace")
            self.answers |= _answers_in(text)
            self._cut_short = not text.endswith("\n") and text != ""

    def knows(self, question: Question) -> bool:
        """Whether this was answered before."""
        return self._name(question) in self.answers

    def ask(self, question: Question) -> str:
        """The answer, from the file if it is there."""
        name = self._name(question)
        if name not in self.answers:
            self.answers[name] = answer = self._answered(question)
            if self.file is not None:
                # A line that an earlier run was killed in is ended first.
                with open(self.file, "a", encoding="utf-8") as file:
                    file.write("\n" * self._cut_short + json.dumps({"asked": name, "answer": answer}) + "\n")
                self._cut_short = False
        return self.answers[name]

    def _name(self, question: Question) -> str:
        return hashlib.sha256(json.dumps(question.body(self.model), sort_keys=True).encode()).hexdigest()

    def _answered(self, question: Question) -> str:
        """What the address says; a sentence if it says nothing after several tries."""
        reason = ""
        for number in range(TRIES):
            if number:
                self.sleep(PAUSE * 2 ** (number - 1))
            try:
                return _content(_posted(f"{self.url.rstrip('/')}/chat/completions", question.body(self.model)))
            except HTTPError as error:
                reason = f"status {error.code}"
                if error.code not in AGAIN:
                    break
            except (URLError, HTTPException, OSError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            except (ValueError, KeyError, IndexError, TypeError, RecursionError):
                reason = "no answer of the form of chat completions"
        kept = f"; {len(self.answers)} answers are kept in {self.file}" if self.file is not None else ""
        raise ExpanderError(
            f"The judge {self.model} at {self.url} does not answer ({reason}){kept}; run this again when it does, "
            "and it goes on from there."
        )


def _posted(address: str, body: Mapping[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    if os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    request = Request(address, json.dumps(body).encode(), headers)
    with urlopen(request, timeout=TIMEOUT) as answer:
        return json.loads(answer.read())


def _content(answer: Any) -> str:
    content = answer["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError
    return content


def _answers_in(text: str) -> dict[str, str]:
    """The answers of a file; what a line that was cut short had answered is asked again."""
    found = {}
    for line in text.split("\n"):
        try:
            content = json.loads(line)
            found[str(content["asked"])] = str(content["answer"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


@dataclass(frozen=True)
class Costs:
    """What asking will cost, before it is begun."""

    questions: int
    letters: int
    """Of all questions together."""
    most: int
    """Tokens of all answers together, at most."""

    @classmethod
    def together(cls, costs: Sequence[Costs]) -> Costs:
        """Of all of them."""
        return cls(*(sum(getattr(each, name) for each in costs) for name in ("questions", "letters", "most")))

    def __str__(self) -> str:
        tokens = self.letters // LETTERS_PER_TOKEN
        return f"{self.questions:,} questions, about {tokens:,} tokens to read and at most {self.most:,} to write"
