"""A held-out text in one file, so that the model need not read it again for the next dictionary."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.held_out import HeldOut, Text
from expander_sae.evaluation.quality.predictions import Predictions
from expander_sae.files import replace_file

FORMAT = "expander-sae-held-out-2"
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
    metadata = {"format": FORMAT, "content": json.dumps(content)}
    replace_file(Path(path), save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def kept(path: str | os.PathLike[str], origin: dict[str, Any] | None = None) -> HeldOut:
    """The held-out text in a file that `keep` wrote, of this origin if one is given."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ExpanderError(f"{path} cannot be read ({error}); delete it, and the text is read again.") from error
    if metadata.get("format") != FORMAT:
        raise ExpanderError(f"{path} is no held-out text of this version; delete it, and the text is read again.")
    content = json.loads(metadata["content"])
    if origin is not None and content["origin"] != origin:
        raise ExpanderError(f"{path} holds another text, or that of another model; give another file or delete it.")
    text = Text(
        **{name: tensors[f"text.{name}"].numpy() for name in _OF_TEXT},
        documents=content["documents"],
        spelled={int(kind): spelling for kind, spelling in content["spelled"].items()},
    )
    found = {name: tensors.get(f"predictions.{name}") for name in _OF_PREDICTIONS}
    predictions = Predictions(**found, softcap=content["softcap"])  # type: ignore[arg-type]  # only bias may be None
    return HeldOut(text, tensors["place"].numpy(), tensors["x"], predictions, content["massive_above"])
