"""Evaluations as people read them, in a table that fits 100 columns, and as programs do, in JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import DENSITY_EDGES, Evaluation, Interval, Kind, LanguageModelLoss
from expander_sae.files import json_text, replace_file
from expander_sae.version import __version__

ENDINGS = (".json", ".csv")
COLUMNS = {name: f"ce_{name}" for name in ("clean", "patched", "zero", "mean")} | {"language_model": ""}
"""What entries are called in a table, where their own name says too little."""


def as_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """A row for each autoencoder; below a number stands half its 95 % interval, below the CE its rise over clean."""
    losses = [evaluation.language_model for evaluation in evaluations.values()]
    retention = any(loss is not None and loss.retention_zero is not None for loss in losses)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("dictionary", overflow="fold")
    headings = ["FVU", "never\nfired", "L0", "CE\n(lost)", "recovered\n(zero)", "recovered\n(mean)", "KL"]
    for heading in [*headings, "retention"] if retention else headings:
        table.add_column(heading, justify="right")
    for name, evaluation in evaluations.items():
        table.add_row(
            Text(f"{name}\n{evaluation.coder}"),
            _cell(evaluation.fvu),
            f"{evaluation.never_fired:.1%}",
            f"{evaluation.l0.value:.1f}",
            *_loss_cells(evaluation.language_model, retention),
        )
    return table


def _loss_cells(loss: LanguageModelLoss | None, retention: bool) -> list[str]:
    if loss is None:
        return ["-"] * (4 + retention)
    shares = [loss.recovered_zero, loss.recovered_mean, loss.kl]
    if loss.retention_zero is not None:
        shares.append(loss.retention_zero)
    delta = loss.patched.value - loss.clean.value
    return [f"{loss.patched.value:.3f}\n{delta:+.3f}", *map(_cell, shares)]


def _cell(number: Interval) -> str:
    """The number, and how sure it is if that is known."""
    if math.isnan(number.value):
        return "-"
    sure = "" if math.isnan(number.half_width) else f"\n±{number.half_width:.3f}"
    return f"{number.value:.3f}{sure}"


def notes(evaluations: Mapping[str, Evaluation], reference: str | None) -> list[str]:
    """The sentences below the table: what it was measured on, what was left as it is, and what to be careful with."""
    one = next(iter(evaluations.values()))
    lines = [_scope(one), _passed_through(one)]
    if one.language_model is not None:
        loss = one.language_model
        lines.append(
            f"Cross-entropy in nats per predicted token: {loss.clean.value:.3f} as the model is, {loss.zero.value:.3f} "
            f"with zeros and {loss.mean.value:.3f} with the mean in place of the activations."
        )
        lines += [
            f"Ablation ({name}) does not raise the cross-entropy here, so there is no loss to recover."
            for name in loss.harmless_ablations
        ]
        lines.append(
            "No retention: it needs a dense dictionary with the n and k of a sparse one, or a --reference."
            if reference is None
            else f"Retention is the share of what {reference} recovers (zero)."
        )
    if one.setting.get("held_out") is False:
        lines.append("Careful: training used this part of the text too.")
    if not math.isnan(one.fvu.half_width):
        lines.append("± is half the 95 % interval over documents.")
    return lines


def _scope(one: Evaluation) -> str:
    known = one.setting
    text = f"{one.tokens:,} tokens of {one.documents:,} document{'s' * (one.documents != 1)}"
    if "hookpoint" not in known:
        return f"{text}."
    bos = "with BOS" if known["bos"] else "without BOS"
    return (
        f"{text} of {known['text']} ({known['part']}, context {known['context']}, {bos}), "
        f"at {known['hookpoint']} of {known['model']}."
    )


def _passed_through(one: Evaluation) -> str:
    counts = " and ".join(f"{count:,} {kind}" for kind, count in one.passed_through.items())
    limit = ""
    if "massive_above" in one.setting and "massive_from" in one.setting:
        limit = f" (norm above {one.setting['massive_above']:.1f}, known from {one.setting['massive_from']})"
    return f"Passed through as they are: {counts} tokens{limit}."


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
