"""Changing activations while a model runs: the one hook that every intervention uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.activations.hookpoints import Hookpoint, blocks_of, find_hookpoints
from expander_sae.errors import ExpanderError

Change = Callable[[Tensor], Tensor]
"""What becomes of the activations [batch, length, m] at a hookpoint."""


@contextmanager
def changing(base: nn.Module, hookpoint: Hookpoint, change: Change) -> Iterator[None]:
    """Inside, what goes into the module or comes out of it is changed; afterwards the hook is gone, come what may."""
    module = base.get_submodule(hookpoint.module)

    def before(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs:
            return (change(inputs[0]), *inputs[1:]), named
        name, given = next(iter(named.items()))  # some models pass the activations by name
        return inputs, named | {name: change(given)}

    def behind(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple | list):
            return (change(output[0]), *output[1:])
        return change(output)

    handle: Any
    if hookpoint.at_input:
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(behind)
    try:
        yield
    finally:
        handle.remove()


_TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.(?:hook_resid_(pre|post)|hook_(mlp|attn)_out)")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")


def hookpoint_named(model: nn.Module, name: str) -> Hookpoint:
    """The hookpoint that a name means: as `harvest` writes it (layers.12), with what stands before it in the model
    (model.layers.12), or as TransformerLens says it (blocks.12.hook_resid_post)."""
    base = getattr(model, "base_model", model)
    names = [each for each, _ in base.named_modules()]
    found = _TRANSFORMER_LENS.fullmatch(name)
    if found is not None:
        name = _translated(model, name, *found.groups())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    module = name.split(":")[0]
    if module not in names and prefix != "." and module.startswith(prefix):
        name = name.removeprefix(prefix)
    hookpoints = find_hookpoints(model, [name])
    if len(hookpoints) > 1:
        raise ExpanderError(f"{name!r} matches {len(hookpoints)} hookpoints; name one of them.")
    return hookpoints[0]


def _translated(model: nn.Module, name: str, number: str, side: str | None, part: str | None) -> str:
    """What TransformerLens's name is called here."""
    chain = blocks_of(model)
    if chain is None:
        raise ExpanderError(f"{name} cannot be translated, for this model has no list of blocks; name a module of it.")
    block = f"{chain}.{number}"
    if side is not None:
        return block + ":input" * (side == "pre")
    base = getattr(model, "base_model", model)
    inside = dict(base.get_submodule(chain).named_children()).get(number, nn.Module())
    wanted = ("mlp",) if part == "mlp" else _ATTENTION
    modules = [each for each in wanted if hasattr(inside, each)]
    if not modules:
        raise ExpanderError(f"{name} cannot be translated: {block} has no module called {' or '.join(wanted)}.")
    return f"{block}.{modules[0]}"


class Reading:
    """What the model is reading at the moment: where in the sequence its tokens stand, and which of them are padding.

    With a cache a model is given the new tokens only; their places follow from what the cache holds.
    """

    def __init__(self) -> None:
        self.start = 0
        self.ids: Tensor | None = None
        self.mask: Tensor | None = None

    @contextmanager
    def watched(self, base: nn.Module) -> Iterator[None]:
        """Inside, every forward pass of the model tells what it reads."""

        def look(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = [*inputs, *named.values()]
            cache = next((each for each in given if hasattr(each, "get_seq_length")), None)
            self.start = 0 if cache is None else int(cache.get_seq_length())
            self.ids = named.get("input_ids", inputs[0] if inputs else None)
            self.mask = named.get("attention_mask")

        handle = base.register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def place(self, length: int, device: torch.device) -> Tensor:
        """Of every token that is read, in the sequence."""
        return torch.arange(self.start, self.start + length, device=device)

    def there(self, x: Tensor) -> Tensor:
        """Which tokens [batch, length] of these activations are no padding."""
        if self.mask is None or self.mask.ndim != 2:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return self.mask[:, -x.shape[1] :].bool().to(x.device)
