"""Labels of tokens: those that the text tells by itself, and spans of characters that a user brings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.text_labels import Span, labels_of_text


def labels_from_text(held_out: HeldOut) -> dict[str, NDArray[np.bool_]]:
    """For every label that a text tells by itself (digits, names, quotations, ...), which measured tokens bear it."""
    return _labels(held_out, labels_of_text)


def labels_from_spans(path: Path, held_out: HeldOut) -> dict[str, NDArray[np.bool_]]:
    """For every label of a file, which measured tokens bear it.

    Every line is a JSON object with the `text` of a document and its `spans`, a list of [begin, end, label] in
    characters. A token bears the labels of the span that its first character which is no white space lies in.
    """
    spans = _read(path)
    documents = held_out.text.documents
    missing = sum(document not in spans for document in documents)
    if missing:
        raise ExpanderError(
            f"{path} has no labels for {missing} of the {len(documents)} documents of the text; measure on the text of "
            "that file."
        )
    return _labels(held_out, lambda document: spans[document])


def _labels(held_out: HeldOut, spans_of: Callable[[str], list[Span]]) -> dict[str, NDArray[np.bool_]]:
    text = held_out.text
    found: dict[str, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(text.ids), dtype=bool))
    for number, document in enumerate(text.documents):
        start, end = np.searchsorted(text.document, [number, number + 1])
        first = _first_characters(document, text.spans[start:end])
        for begin, stop, label in spans_of(document):
            low, high = np.searchsorted(first, [begin, stop])
            found[label][start + low : start + high] = True
    return {label: found[label][held_out.place] for label in sorted(found)}


def _first_characters(document: str, spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every token its first character that is no white space, or its last one; never before that of the last."""
    first = []
    for begin, end in spans.tolist():
        blank = len(document[begin:end]) - len(document[begin:end].lstrip())
        first.append(min(begin + blank, max(begin, end - 1)))
    return np.maximum.accumulate(np.array(first, dtype=np.int64)) if first else np.empty(0, dtype=np.int64)


def _read(path: Path) -> dict[str, list[Span]]:
    """The spans of every document, by its text."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExpanderError(f"{path} cannot be read ({error}); give a JSONL file of text and spans.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            found[str(content["text"])] = [(int(begin), int(end), str(label)) for begin, end, label in content["spans"]]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ExpanderError(
                f'Line {number} of {path} is not {{"text": "...", "spans": [[begin, end, "label"], ...]}}; correct it.'
            ) from error
    return found
