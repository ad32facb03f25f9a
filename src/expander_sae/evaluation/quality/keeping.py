"""A held-out text in one file, so that the model need not read it again for the next dictionary."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.held_out import HeldOut, Text
from expander_sae.evaluation.quality.predictions import Predictions
from expander_sae.files import read_checked_tensors, write_checked_tensors

FORMAT = "expander-sae-held-out-3"
"""The form of the file; another one is refused."""
_OF_TEXT = ("ids", "document", "piece", "position", "spans")
_OF_PREDICTIONS = ("hidden", "embedding", "bias")


def keep(held_out: HeldOut, path: str | os.PathLike[str], origin: dict[str, Any] | None = None) -> None:
    """Write a held-out text; `origin` says where it comes from, and `kept` refuses another."""
    text, predictions = held_out.text, held_out.predictions
    tensors = {f"text.{name}": torch.from_numpy(getattr(text, name)) for name in _OF_TEXT}
    tensors |= {
        f"predictions.{name}": value for name in _OF_PREDICTIONS if (value := getattr(predictions, name)) is not None
    }
    tensors |= {"place": torch.from_numpy(held_out.place), "x": held_out.x}
    content = {
        "documents": text.documents,
        "spelled": {str(kind): spelling for kind, spelling in text.spelled.items()},
        "softcap": predictions.softcap,
        "massive_above": held_out.massive_above,
        "origin": origin or {},
    }
    write_checked_tensors(Path(path), tensors, {"format": FORMAT, "content": json.dumps(content)})


def kept(path: str | os.PathLike[str], origin: dict[str, Any] | None = None) -> HeldOut:
    """The held-out text in a file that `keep` wrote, of this origin if one is given."""
    try:
        tensors, about = read_checked_tensors(Path(path))
        if about.get("format") != FORMAT:
            raise ValueError("another form")
        content = json.loads(about["content"])
        held_out = _held_out(tensors, content)
    except (ValueError, OSError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ExpanderError(
            f"{path} cannot be read: it is damaged, or of another version; delete it, and the text is read again."
        ) from error
    if origin is not None and content["origin"] != origin:
        raise ExpanderError(f"{path} holds another text, or that of another model; give another file or delete it.")
    return held_out


def _held_out(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> HeldOut:
    """Out of what such a file holds; an error of any kind if that is something else."""
    text = Text(
        **{name: tensors[f"text.{name}"].numpy() for name in _OF_TEXT},
        documents=content["documents"],
        spelled={int(kind): spelling for kind, spelling in content["spelled"].items()},
    )
    found = {name: tensors.get(f"predictions.{name}") for name in _OF_PREDICTIONS}
    predictions = Predictions(**found, softcap=content["softcap"])  # type: ignore[arg-type]  # only bias may be None
    return HeldOut(text, tensors["place"].numpy(), tensors["x"], predictions, content["massive_above"])
