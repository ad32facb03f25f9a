"""Activations straight from the language model, as batches for training: nothing is written to disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.distributed import check_one_precision
from expander_sae.activations.harvest import TextConfig, origin_at, settled_text
from expander_sae.activations.hookpoints import find_hookpoints, read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store.manifest import MASSIVE_MULTIPLE
from expander_sae.activations.windows import Place, Window, WindowedText
from expander_sae.checks import at_least
from expander_sae.distribution import Group, current_group
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory

WINDOW = 65_536
"""Tokens that are mixed with each other unless asked otherwise; two windows are in memory at a time."""


class LiveActivations:
    """Iterates over `[batch, m]` activations of a text without end, in an order set by the seed; resumes bit by bit.

    A window of tokens is computed, shuffled and given out while the next one is computed; a text that ends begins anew.
    Massive tokens (norm above 4 times the median of the first window) are left out. Processes of a group share the
    model's work, and each gets those tokens of every batch that it computed itself.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        hookpoint: str,
        text: TextConfig | None = None,
        *,
        batch: int,
        seed: int = 0,
        window: int = WINDOW,
        group: Group | None = None,
    ) -> None:
        """`batch` and `window` are those of all processes together; `group` is the one that was joined by default."""
        _check_sizes(batch, seed, window)
        found = find_hookpoints(language_model.model, [hookpoint])
        if len(found) > 1:
            raise ExpanderError(
                f"Training reads one hookpoint, but {hookpoint} matches {len(found)}; name one of them."
            )
        probe = torch.zeros(1, 2, dtype=torch.int64, device=language_model.device)
        self.width = read_activations(language_model.model, found, probe)[found[0]].shape[-1]
        """Size of an activation."""
        held = (2.0 * window + 2.0 * batch) * self.width * language_model.model.dtype.itemsize
        what = f"Two windows of {window:,} tokens and a batch of {batch:,}"
        check_memory(what, held, str(language_model.device), "give a smaller --window or --batch")
        text = settled_text(language_model, text or TextConfig())
        self.language_model, self._hookpoint = language_model, found[0]
        self._batch, self._seed = batch, seed
        self._group = current_group() if group is None else group
        check_one_precision(language_model, self._group)
        self._text = WindowedText(language_model, text, window)
        self._from = origin_at(language_model, found[0], text)
        self._identity = {
            **self._from,
            "seed": seed,
            "batch": batch,
            "window": window,
        }
        self.median_norm: float | None = None
        """The median norm of the tokens of the first window, once that was computed."""
        self._position = 0
        self._window = self._window_at(Place())
        self._upcoming: Window | None = None

    @property
    def massive_above(self) -> float | None:
        """The norm above which a token is left out; known once the first window was computed."""
        return None if self.median_norm is None else MASSIVE_MULTIPLE * self.median_norm

    @property
    def origin(self) -> dict[str, Any]:
        """Where the activations come from, as a store tells it, and which ones were left out."""
        return {**self._from, "median_norm": self.median_norm, "massive_above": self.massive_above}

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Float[Tensor, "tokens m"]:
        parts, held = list[Tensor](), 0
        while held < self._batch:
            self._complete_window()
            taken = min(self._batch - held, self._window.count - self._position)
            parts.append(self._window.gather(self._position, taken))
            self._position, held = self._position + taken, held + taken
        if self._upcoming is None:
            self._upcoming = self._window_at(self._window.after)
        # As much of the next window as was used of this one, so that no step waits for long.
        self._upcoming.compute(self._position / self._window.count)
        return torch.cat(parts).to(torch.float32)

    def _complete_window(self) -> None:
        """The window has its order, and a token that was not given out yet."""
        while True:
            if not self._window.finished:
                self.median_norm = self._window.finish(self.median_norm, self._seed)
            if self._position < self._window.count:
                return
            self._window, self._position = self._upcoming or self._window_at(self._window.after), 0
            self._upcoming = None

    def _window_at(self, place: Place) -> Window:
        place, batches = self._text.window(place)
        return Window(self.language_model, self._hookpoint, self.width, place, batches, self._group)

    def state_dict(self) -> dict[str, Any]:
        """The window, the position in it, and what they are positions of; the same in every process."""
        return {
            **asdict(self._window.place),
            "position": self._position,
            "median_norm": self.median_norm,
            "fingerprint": self._window.fingerprint,
            "source": self._identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the batch that was the last one when the state was taken; its window is computed again."""
        there = state.get("source")
        known = there if isinstance(there, Mapping) else {}
        for name, here in self._identity.items():
            if known.get(name) != here:
                raise ExpanderError(
                    f"The position is of activations with {name} {known.get(name)!r}, not {here!r}; resume with the "
                    "same model, text and settings or start anew in another folder."
                )
        place = Place(int(state["epoch"]), int(state["batch"]))
        if place != self._window.place:
            self._window, self._upcoming = self._window_at(place), None
        if (place, state["fingerprint"]) != (self._window.place, self._window.fingerprint):
            raise ExpanderError(
                f"{self._identity['text']} is not the text that it was when the run was saved; resume with the same "
                "text or start anew in another folder."
            )
        self._position = int(state["position"])
        if state["median_norm"] is not None:
            self.median_norm = float(state["median_norm"])

    def close(self) -> None:
        """Nothing to let go of."""


def _check_sizes(batch: int, seed: int, window: int) -> None:
    for name, value in (("batch", batch), ("window", window)):
        at_least(name, value, 1)
    if not 0 <= seed < 2**64:
        raise ExpanderError(f"The seed must be from 0 to 2^64 - 1, not {seed}.")
