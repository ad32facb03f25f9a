"""Labels of tokens, from spans of characters that a user brings."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.held_out import HeldOut


def labels_from_spans(path: Path, held_out: HeldOut) -> dict[str, NDArray[np.bool_]]:
    """For every label of a file, which measured tokens bear it.

    Every line is a JSON object with the `text` of a document and its `spans`, a list of [begin, end, label] in
    characters. A token bears the labels of the span that its first character which is no white space lies in.
    """
    spans = _read(path)
    text = held_out.text
    missing = [number for number, each in enumerate(text.documents) if each not in spans]
    if missing:
        raise ExpanderError(
            f"{path} has no labels for {len(missing)} of the {len(text.documents)} documents of the text; measure on "
            "the text of that file."
        )
    ends = np.append(np.flatnonzero(np.diff(text.document)) + 1, len(text.document))
    found: dict[str, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(text.ids), dtype=bool))
    for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        document = text.documents[text.document[start]]
        first = _first_characters(document, text.spans[start:end])
        for begin, stop, label in spans[document]:
            low, high = np.searchsorted(first, [begin, stop])
            found[label][start + low : start + high] = True
    return {label: found[label][held_out.place] for label in sorted(found)}


def _first_characters(document: str, spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every token its first character that is no white space, or its last one."""
    first = []
    for begin, end in spans.tolist():
        blank = len(document[begin:end]) - len(document[begin:end].lstrip())
        first.append(min(begin + blank, max(begin, end - 1)))
    return np.array(first, dtype=np.int64)


def _read(path: Path) -> dict[str, list[tuple[int, int, str]]]:
    """The spans of every document, by its text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExpanderError(f"{path} cannot be read ({error}); give a JSONL file of text and spans.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
            found[str(content["text"])] = [(int(begin), int(end), str(label)) for begin, end, label in content["spans"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ExpanderError(
                f'Line {number} of {path} is not {{"text": "...", "spans": [[begin, end, "label"], ...]}}; correct it.'
            ) from error
    return found
