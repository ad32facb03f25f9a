"""Evaluations as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import DENSITY_EDGES, Evaluation, Kind
from expander_sae.files import json_text, replace_file
from expander_sae.version import __version__

ENDINGS = (".json", ".csv")
COLUMNS = {name: f"ce_{name}" for name in ("clean", "patched", "zero", "mean")} | {"language_model": ""}
"""What entries are called in a table, where their own name says too little."""


def check_writable(path: Path) -> None:
    """Refuse a file that `write` could not write, before the work is done."""
    if path.suffix not in ENDINGS:
        raise ExpanderError(f"{path} must end in {' or '.join(ENDINGS)}, which says how it is written.")
    if not path.absolute().parent.is_dir():
        raise ExpanderError(f"The folder of {path} does not exist.")


def write(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Put the evaluations into a .json or a .csv file, in one step."""
    check_writable(path)
    text = as_json(evaluations) if path.suffix == ".json" else as_csv(evaluations)
    replace_file(path, text.encode())


def as_json(evaluations: Mapping[str, Evaluation]) -> str:
    """Everything, the edges of the density histogram and the library's version included; nan is null."""
    content = {
        "library_version": __version__,
        "density_edges": list(DENSITY_EDGES),
        "intervals": Kind.DOCUMENTS,
        "evaluations": [evaluation.to_json() for evaluation in evaluations.values()],
    }
    return json_text(content)


def as_csv(evaluations: Mapping[str, Evaluation]) -> str:
    """A line for each autoencoder; a number with an interval takes three columns, and what does not exist is empty."""
    rows = [_flat(evaluation.to_json()) for evaluation in evaluations.values()]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Entries of inner mappings beside the others (fvu, fvu_low, fvu_high, ce_clean, ...), without the histogram."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        column = prefix.removesuffix("_") if name == "value" else prefix + COLUMNS.get(name, name)
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{column}_" if column else "")
        elif name not in ("density", "language_model"):
            flat[column] = value
    return flat
