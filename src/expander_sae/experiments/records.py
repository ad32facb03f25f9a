"""What was measured on disk, for experiments that go on where they were stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import Estimate, Evaluation, LanguageModelLoss
from expander_sae.files import write_json

_ESTIMATES = ("fvu", "explained_variance", "cosine", "l0")


def read_cell(path: Path) -> dict[str, Any]:
    """What such a file holds."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> ExpanderError:
    """What to say of a file that does not hold what was written."""
    return ExpanderError(f"{path} was edited or damaged; delete it to have it made again.")


def write_evaluations(path: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Put evaluations into a JSON file, by name, in one step."""
    write_json(path, {name: evaluation.to_json() for name, evaluation in evaluations.items()})


def read_evaluations(path: Path) -> dict[str, Evaluation]:
    """The evaluations of such a file."""
    try:
        return {name: _evaluation(content) for name, content in read_cell(path).items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path) from error


def _evaluation(content: Mapping[str, Any]) -> Evaluation:
    loss = content["language_model"]
    made = {
        **{name: _estimate(content[name]) for name in _ESTIMATES},
        "language_model": None if loss is None else LanguageModelLoss(**{
            field.name: _estimate(loss[field.name]) for field in fields(LanguageModelLoss)
        }),
    }  # fmt: skip
    return Evaluation(**{**content, **made})


def _estimate(content: Mapping[str, float | None] | None) -> Any:
    """An `Estimate`, or None where there is none."""
    if content is None:
        return None
    return Estimate(**{name: math.nan if number is None else number for name, number in content.items()})
