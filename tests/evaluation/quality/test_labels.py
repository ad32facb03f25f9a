"""Labels come to the tokens whose characters they are about."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import HeldOut
from expander_sae.evaluation.quality.labels import labels_from_spans, labels_from_text
from expander_sae.evaluation.quality.text_labels import labels_of_text


def found(text: str, label: str) -> list[str]:
    """The parts of a text that bear a label."""
    return [text[begin:end] for begin, end, name in labels_of_text(text) if name == label]


def test_a_text_tells_its_labels() -> None:
    text = 'Why did Anna go to Rome in 1987? "Nobody knows," said the FBI (or [its] friends). See https://a.org/b now.'
    assert found(text, "digits") == ["1987"]
    assert found(text, "name") == ["Anna", "Rome"]
    assert found(text, "all capitals") == ["FBI"]
    assert found(text, "quotation") == ['"Nobody knows,"']
    assert found(text, "in brackets") == ["(or [its] friends)"]
    assert found(text, "in brackets inside others") == ["[its]"]
    assert found(text, "question") == ["Why did Anna go to Rome in 1987?"]
    assert found(text, "first word of a sentence") == ["Why", "See"]
    assert found(text, "address") == ["https://a.org/b"]
    assert found("Prose.\n    x = f(1)\nMore.", "code") == ["    x = f(1)"]
    assert found("a ) b ( c", "in brackets") == []


def test_labels_of_the_text_come_to_its_tokens(plain: HeldOut) -> None:
    digits = labels_from_text(plain)["digits"]
    spelled = np.array([plain.text.spelled[int(each)] for each in plain.token])
    assert digits.tolist() == [any(letter.isdigit() for letter in each) for each in spelled]


def test_spans_that_a_user_brings(plain: HeldOut, tmp_path: Path) -> None:
    lines = []
    for document in plain.text.documents:
        begin = document.index("bridge")
        lines.append(json.dumps({"text": document, "spans": [[begin, begin + 6, "span"], [0, 3, "start"]]}))
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(lines) + "\n")
    labels = labels_from_spans(path, plain)
    assert list(labels) == ["span", "start"]
    place = plain.place[labels["span"]]
    for number, document in enumerate(plain.text.documents):
        own = place[plain.text.document[place] == number]
        begin, end = plain.text.spans[own[0], 0], plain.text.spans[own[-1], 1]
        assert document[begin:end].strip() == "bridge"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "Line 1 of"),
        ("not json", "Line 1 of"),
        ('{"text": "a", "spans": [[1, 2]]}', "Line 1 of"),
        ('{"text": "a", "spans": [[1, Infinity, "x"]]}', "Line 1 of"),
        ("[" * 100_000, "Line 1 of"),
        ('{"text": "another text", "spans": []}', "no labels for 40 of the 40 documents"),
    ],
)
def test_a_file_that_is_no_labels_is_refused(plain: HeldOut, tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(content)
    with pytest.raises(ExpanderError, match=sentence):
        labels_from_spans(path, plain)
    with pytest.raises(ExpanderError, match="cannot be read"):
        labels_from_spans(tmp_path / "missing.jsonl", plain)
