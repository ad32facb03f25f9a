"""A folder or file that another library wrote: its parts read with checks, and what is wrong said in one sentence."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class Foreign:
    """What is to be imported."""

    path: Path

    def error(self, what: str) -> ExpanderError:
        """An error whose sentence begins with the path."""
        return ExpanderError(f"{self.path} {what}.")

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file of the folder."""
        try:
            content = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise self.error(f"has no {name} that can be read as JSON; copy the folder again") from error
        if not isinstance(content, dict):
            raise self.error(f"has a {name} that is not an object; copy the folder again")
        return content

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a safetensors file of the folder, in float32."""
        try:
            tensors = safetensors.load_file(self.path / name)
        except (OSError, SafetensorError) as error:
            raise self.error(f"has no {name} that can be read; copy the folder again") from error
        return {key: tensor.float() for key, tensor in tensors.items()}

    def checkpoint(self, name: str = "") -> dict[str, Any]:
        """The content of a `.pt` file that holds tensors, numbers and strings; anything else in it is not run."""
        path = self.path / name
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # what a damaged pickle asks for may fail in any way
            raise ExpanderError(f"{path} is not a file of tensors that can be read safely; copy it again.") from error
        if not isinstance(content, dict):
            raise ExpanderError(f"{path} does not hold tensors by name; give the file that holds the state dict.")
        return {key: value.float() if _is_float(value) else value for key, value in content.items()}

    def check_names(self, tensors: Mapping[str, Any], needed: Iterable[str], allowed: Collection[str] = ()) -> None:
        """Refuse where tensors are missing, or others there."""
        needed = list(needed)
        missing = [name for name in needed if name not in tensors]
        if missing:
            raise self.error(f"lacks the tensors {', '.join(missing)}; it has {', '.join(sorted(tensors))}")
        others = sorted(set(tensors) - set(needed) - set(allowed))
        if others:
            raise self.error(f"has the tensors {', '.join(others)} too, which an expander-sae autoencoder cannot hold")

    def provenance(self, format_name: str, config: Mapping[str, Any], activations: Mapping[str, Any]) -> dict[str, Any]:
        """Where an imported autoencoder comes from."""
        found: dict[str, Any] = {"imported": {"format": format_name, "from": self.path.name, "config": dict(config)}}
        return found | ({"activations": dict(activations)} if activations else {})


def activations_of(
    *, model: object, hookpoint: object, context: object = None, bos: object = None
) -> dict[str, str | int | bool | None]:
    """What provenance says of activations, as far as it is known."""
    found: dict[str, str | int | bool | None] = {}
    if isinstance(model, str) and model:
        found |= {"model": model, "revision": None}
    if isinstance(hookpoint, str) and hookpoint:
        found["hookpoint"] = hookpoint
    if isinstance(context, int) and context > 0:
        found["context"] = context
    if isinstance(bos, bool):
        found["bos"] = bos
    return found


def hookpoint_of(layer: int, *, at_input: bool = False) -> str:
    """The hookpoint of the residual stream behind a layer, or before it."""
    return f"layers.{layer}{':input' * at_input}"


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
