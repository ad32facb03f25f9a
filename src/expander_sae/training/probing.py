"""A probe: what else is measured of the dictionaries while they train, such as the language model's loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.distribution import Group
from expander_sae.training.trainee import Trainee

Probe = Callable[[SparseAutoencoder], Mapping[str, float]]
"""Gives numbers by name, to join a row of metrics."""


class Probing:
    """When the probe is due, and its numbers."""

    def __init__(self, probe: Probe | None, every: int, group: Group) -> None:
        self._probe, self._every, self._group = probe, every, group

    def due(self, before: int, tokens: int, finished: bool) -> bool:
        """Whether to measure after a step from `before` to `tokens`: a matter of these numbers alone, so that a resumed
        run measures where the uninterrupted one does."""
        return self._probe is not None and (finished or before // self._every < tokens // self._every)

    def measure(self, trainees: Sequence[Trainee]) -> list[Mapping[str, float]]:
        """The numbers of every dictionary; without any in the other processes, which wait for the first."""
        found: list[Mapping[str, float]] = [{} for _ in trainees]
        if self._group.writes and self._probe is not None:
            with torch.no_grad():
                found = [self._probe(_if_finished(trainee)) for trainee in trainees]
        self._group.wait()
        return found


def _if_finished(trainee: Trainee) -> SparseAutoencoder:
    """A copy of the autoencoder as it would be kept if the run ended now."""
    ended = copy.copy(trainee)
    ended.sae = copy.deepcopy(trainee.sae)
    return ended.finished()
