"""Running a language model with other activations in the place of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.errors import ExpanderError
from expander_sae.interventions.hooks import changing


class PatchedModel:
    """The logits of a language model whose activations at a hookpoint are replaced.

    What lies before the hookpoint need not be computed then: if it is a chain of blocks, they hand their input on. That
    the model agrees (some pass more than one value from block to block) is seen at the first batch.
    """

    def __init__(self, language_model: LanguageModel, hookpoint: Hookpoint) -> None:
        self.skipped: Sequence[nn.Module] = ()
        """Blocks that are not computed."""
        self._model, self._hookpoint = language_model.model, hookpoint
        self._base: nn.Module = language_model.model.base_model
        self._module = self._base.get_submodule(hookpoint.module)
        self._checked = False
        self._rest: tuple[Any, ...] | None = None
        """What comes out of the module behind its activations; None if it gives a tensor, not a tuple."""

    def logits(
        self, ids: Int[Tensor, "pieces length"], activations: Float[Tensor, "pieces length m"]
    ) -> Float[Tensor, "pieces length vocabulary"]:
        """The model's logits when its activations at the hookpoint are these; the first call must give its own.

        Gradients flow to the activations.
        """
        return self._run(ids, activations) if self._checked else self._check(ids, activations)

    def _run(self, ids: Tensor, activations: Tensor) -> Tensor:
        with changing(self._base, self._hookpoint, lambda _: activations), self._handing_on():
            return self._model(input_ids=ids, use_cache=False).logits

    @torch.no_grad()
    def _check(self, ids: Tensor, activations: Tensor) -> Tensor:
        """The logits of the model as it is, after putting its own activations in place was seen to give the same."""
        with self._watched():
            clean: Tensor = self._model(input_ids=ids, use_cache=False).logits
        for blocks in (self._blocks_before(), ()):
            self.skipped = blocks
            if _same(self._run(ids, activations), clean):
                self._checked = True
                return clean
        raise ExpanderError(
            f"Putting the model's own activations in place at {self._hookpoint} changes its predictions, so it takes "
            "them from elsewhere too; name another hookpoint."
        )

    def _blocks_before(self) -> Sequence[nn.Module]:
        """The blocks up to the hookpoint, if it lies between blocks that hand on activations and nothing else."""
        parent, _, number = self._hookpoint.module.rpartition(".")
        chain = self._base.get_submodule(parent)
        if not isinstance(chain, nn.ModuleList) or any(part is not None for part in self._rest or ()):
            return ()
        return list(chain)[: int(number) + (not self._hookpoint.at_input)]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Inside, see what the module gives besides activations."""

        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            self._rest = tuple(output[1:]) if isinstance(output, tuple | list) else None

        handle = self._module.register_forward_hook(look)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _handing_on(self) -> Iterator[None]:
        """Inside, the skipped blocks give back what they are given."""

        def hand_on(*inputs: Any, **named: Any) -> Any:
            given = inputs[0] if inputs else next(iter(named.values()))
            return given if self._rest is None else (given, *self._rest)

        with ExitStack() as stack:
            for block in self.skipped:
                stack.enter_context(_forward_is(block, hand_on))
            yield


@contextmanager
def _forward_is(module: nn.Module, forward: Any) -> Iterator[None]:
    """Inside, the module computes this; its attributes, which a model may ask for, are its own."""
    own = vars(module).get("forward")  # accelerate sets one
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _same(logits: Float[Tensor, "pieces length vocabulary"], clean: Float[Tensor, "pieces length vocabulary"]) -> bool:
    """Whether two predictions are equal up to rounding."""
    # Piece by piece: a third tensor of this size might not fit.
    error, size = (
        sum(float(torch.linalg.vector_norm(each.float())) ** 2 for each in pieces)
        for pieces in ((one - other for one, other in zip(logits, clean, strict=True)), clean)
    )
    return error <= torch.finfo(clean.dtype).eps * size
