"""Hookpoints: where in a model activations are read, and a forward pass that stops behind the last of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.errors import ExpanderError

INPUT = ":input"
"""Behind a module's name: what goes into it rather than what comes out."""


@dataclass(frozen=True)
class Hookpoint:
    """The output of a module, or its input."""

    module: str
    """Name of the module inside the base model, such as layers.12."""
    at_input: bool = False

    def __str__(self) -> str:
        return self.module + INPUT * self.at_input


def find_hookpoints(model: nn.Module, patterns: Sequence[str]) -> list[Hookpoint]:
    """The hookpoints that match any of the patterns (fnmatch, as in layers.1* or layers.*.mlp:input), in model order.

    Names are those of the base model's modules: layers.12, not model.layers.12. Where a model has another word for its
    blocks (h, decoder.layers, language_model.layers), layers stands for that.
    """
    names = [name for name, _ in _base(model).named_modules() if name]
    if not patterns:
        raise ExpanderError("No hookpoint was asked for; name one such as layers.12.")
    found: set[Hookpoint] = set()
    for pattern in patterns:
        at_input = pattern.endswith(INPUT)
        matching = _matching(model, names, pattern.removesuffix(INPUT))
        if not matching:
            near = difflib.get_close_matches(pattern.removesuffix(INPUT), names, n=5, cutoff=0.3)
            raise ExpanderError(
                f"No module of the model matches {pattern!r}; the nearest names are {', '.join(near or names[:5])}."
            )
        found |= {Hookpoint(name, at_input) for name in matching}
    return sorted(found, key=lambda hookpoint: (names.index(hookpoint.module), hookpoint.at_input))


def _matching(model: nn.Module, names: Sequence[str], pattern: str) -> list[str]:
    """The names that match, if none does with the model's own word for its blocks in place of layers."""
    matching = [name for name in names if fnmatchcase(name, pattern)]
    if not matching and pattern.startswith("layers."):
        own = blocks_of(model)
        matching = [name for name in names if fnmatchcase(name, f"{own}.{pattern.removeprefix('layers.')}")]
    return matching


def blocks_of(model: nn.Module) -> str | None:
    """The name of the list of a model's blocks; None if nothing looks like one.

    It is the list with as many modules as the model's config has layers, or the longest; of several the last, for what
    reads pictures comes before what reads text.
    """
    lists = {name: len(module) for name, module in _base(model).named_modules() if isinstance(module, nn.ModuleList)}
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    wanted = getattr(config, "num_hidden_layers", None)
    if wanted not in lists.values():
        wanted = max(lists.values(), default=None)
    return next((name for name, length in reversed(lists.items()) if length == wanted), None)


class _AllRead(Exception):
    """Every hookpoint has fired: not an error, it ends a forward pass that has done its work."""


def read_activations(
    model: nn.Module, hookpoints: Sequence[Hookpoint], ids: Int[Tensor, "pieces length"]
) -> dict[Hookpoint, Float[Tensor, "pieces length m"]]:
    """The activations of every token at every hookpoint; what lies behind the last hookpoint is not computed."""
    return _read(model, hookpoints, ids, stop=True)[0]


def read_with_output(
    model: nn.Module, hookpoint: Hookpoint, ids: Int[Tensor, "pieces length"]
) -> tuple[Float[Tensor, "pieces length m"], Float[Tensor, "pieces length width"]]:
    """The activations of every token at a hookpoint, and what the model hands to its output embedding."""
    found, output = _read(model, [hookpoint], ids, stop=False)
    return found[hookpoint], output


def _read(
    model: nn.Module, hookpoints: Sequence[Hookpoint], ids: Int[Tensor, "pieces length"], *, stop: bool
) -> tuple[dict[Hookpoint, Tensor], Any]:
    """The activations at every hookpoint and the last hidden state, which is None if told to stop before it."""
    base = _base(model)
    found: dict[Hookpoint, Tensor] = {}

    def keep(hookpoint: Hookpoint, value: Any) -> None:
        tensor = value[0] if isinstance(value, tuple | list) else value
        if not isinstance(tensor, Tensor) or tensor.shape[:2] != ids.shape or tensor.ndim != 3:
            raise ExpanderError(f"{hookpoint} does not hold one vector for each token; name another module.")
        found[hookpoint] = tensor.detach()
        if stop and len(found) == len(hookpoints):
            raise _AllRead

    def hook(hookpoint: Hookpoint) -> Any:
        module = base.get_submodule(hookpoint.module)
        if hookpoint.at_input:
            # Some models pass the activations by name.
            return module.register_forward_pre_hook(
                lambda _, inputs, named: keep(hookpoint, inputs or next(iter(named.values()))), with_kwargs=True
            )
        return module.register_forward_hook(lambda _, __, output: keep(hookpoint, output))

    output = None
    handles = [hook(hookpoint) for hookpoint in hookpoints]
    try:
        with torch.no_grad():
            output = base(input_ids=ids, use_cache=False)[0]
    except _AllRead:
        return found, None
    finally:
        for handle in handles:
            handle.remove()
    missing = ", ".join(str(hookpoint) for hookpoint in hookpoints if hookpoint not in found)
    if missing:
        raise ExpanderError(f"{missing} took no part in the model's forward pass; name another module.")
    return found, output


def _base(model: nn.Module) -> nn.Module:
    """The model without its head."""
    base = getattr(model, "base_model", model)
    return base if isinstance(base, nn.Module) else model
