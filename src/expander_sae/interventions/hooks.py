"""Changing activations while a model runs: the one hook that every intervention uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

    With a cache a model is given the new tokens only; their places follow from what the cache holds. That of a
    recurrent model (Mamba) does not say how much that is, so what it was given is counted here.
    """

    def __init__(self) -> None:
        self.start = 0
        self._depth = 0
        self._uncounted: tuple[Any, int] = (None, 0)
        """A cache that does not count, and the tokens that it holds."""
        self.ids: Tensor | None = None
        self.mask: Tensor | None = None

    @contextmanager
    def watched(self, model: nn.Module, base: nn.Module) -> Iterator[None]:
        """Inside, every forward pass tells what it reads.

        The model or its base may be called, and some models (OPT) go past their base: the outermost that runs tells.
        """

        def look(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._depth += 1
            if self._depth > 1:
                return
            given = [*inputs, *named.values()]
            cache = next((each for each in given if hasattr(each, "get_seq_length")), None)
            self.ids = named.get("input_ids", inputs[0] if inputs else None)
            self.start = 0 if cache is None else self._held_by(cache)
            self.mask = named.get("attention_mask")

        def leave(*_: Any) -> None:
            self._depth -= 1

        self._depth, self._uncounted = 0, (None, 0)
        with ExitStack() as stack:
            for module in dict.fromkeys((model, base)):
                stack.callback(module.register_forward_pre_hook(look, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            yield

    def _held_by(self, cache: Any) -> int:
        """Tokens that the cache holds before the pass that begins."""
        try:
            return int(cache.get_seq_length())
        except ValueError:
            known, held = self._uncounted
            start = held if known is cache else 0
            self._uncounted = (cache, start + (0 if self.ids is None else self.ids.shape[1]))
            return start

    def place(self, length: int, device: torch.device) -> Tensor:
        """Of every token that is read, in the sequence."""
        return torch.arange(self.start, self.start + length, device=device)

    def there(self, x: Tensor) -> Tensor:
        """Which tokens [batch, length] of these activations are no padding."""
        if self.mask is None or self.mask.ndim != 2:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return self.mask[:, -x.shape[1] :].bool().to(x.device)
