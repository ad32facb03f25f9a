"""What `expander eval` and `expander quality` found of a dictionary, for the overview of its dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.errors import ExpanderError

ABOUT = {
    "fvu": ("FVU", "fraction of variance unexplained; smaller is better"),
    "l0": ("active features a token", "mean number of features that fire on a token"),
    "recovered_zero": ("CE recovered (zero)", "share of what zeros in place cost the model that is won back"),
    "recovered_mean": ("CE recovered (mean)", "share of what the mean in place costs the model that is won back"),
    "retention_zero": ("retention", "CE recovered as a share of the dense dictionary's"),
    "token_r2": ("token R²", "share of the variance of an activation that the token explains, mean over features"),
    "purity": ("purity", "share of the commonest token among ten strongest contexts"),
    "coherence_of_predictions": ("coherence of predictions", "how alike the model predicts in its strongest contexts"),
    "coherence_strongest": ("coherence, strongest", "cosine of the model's activations in its strongest contexts"),
    "coherence_any": ("coherence, any", "the same for firings drawn at random"),
    "probe_1": ("probe, 1 feature", "F1 of word classes read off the best single feature"),
    "probe_8": ("probe, 8 features", "F1 of word classes read off eight features"),
}
"""Measures that are shown, by their name in JSON: what they are called, and what they say."""


@dataclass(frozen=True)
class Measure:
    """A number of the overview, with its interval if it has one."""

    name: str
    about: str
    value: float
    low: float | None = None
    high: float | None = None


def measures_in(path: Path, name: str) -> list[Measure]:
    """The measures of the dictionary `name` in a JSON file that `expander eval` or `expander quality` wrote."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ExpanderError(f"There is no file {path}; `expander eval` and `expander quality` write one.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ExpanderError(f"{path} is not a JSON file that `expander eval` or `expander quality` wrote.") from error
    records = [record for record in _records(content) if record.get("name") == name]
    if not records:
        raise ExpanderError(f"{path} says nothing of a dictionary called {name!r}.")
    return [measure for record in records for measure in _measures(record)]


def _records(content: Any) -> Iterator[Mapping[str, Any]]:
    """Everything in the file that has a name."""
    if isinstance(content, Mapping):
        if "name" in content:
            yield content
        for value in content.values():
            yield from _records(value)
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for value in content:
            yield from _records(value)


def _measures(record: Mapping[str, Any]) -> Iterator[Measure]:
    """The measures of a record, those of an inner mapping too."""
    for key, value in record.items():
        if key in ABOUT:
            name, about = ABOUT[key]
            if isinstance(value, Mapping) and isinstance(value.get("value"), int | float):
                yield Measure(name, about, float(value["value"]), value.get("low"), value.get("high"))
            elif isinstance(value, int | float):
                yield Measure(name, about, float(value))
        elif isinstance(value, Mapping):
            yield from _measures(value)
