"""Training among very many features: tokens look at a share of them, in groups that are made anew as columns change.

Columns move a little at every step and some begin anew, while a group says how its columns were when it was made. What
that costs is recall, never exactness, so groups may be old for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.dictionaries.gradients import GradientsInPlace
from expander_sae.distribution import Group
from expander_sae.errors import ExpanderError
from expander_sae.kernels.groups import GroupedColumns, Groups
from expander_sae.training.checkpoints import SavedTensors

GROUPS_EVERY = 50
"""Steps after which groups are made anew, which takes about as long as five to ten of them. On uniform rows, whose
norms and biases change most, a twentieth of 2^20 features held 90 % of the right ones in step 50, in groups 50 steps
old as in new ones; in step 100 it held 65 % in groups 100 steps old and 81 % in new ones."""
BEGUN = 0.05
"""Share of the features that may have begun anew before groups are made anew earlier."""


class Looking:
    """Keeps the features of an encoder in groups while it learns."""

    def __init__(self, sae: SparseAutoencoder, group: Group) -> None:
        if group.world > 1 or sae.pre_bias.device.type != "cpu":
            raise ExpanderError(
                "Groups of features to look at are made for the tokens of one process, on a CPU; train in one process "
                "with --device cpu, or leave look off."
            )
        self.sae, self.begun, self.gradients = sae, torch.zeros((), dtype=torch.int64), GradientsInPlace()
        self.dictionaries = [each for each in (sae.encoder, sae.dictionary) if isinstance(each, ExpanderDictionary)]
        self.encoder = self.dictionaries[0]
        bias = [] if sae.latent_bias is None else [sae.latent_bias]
        self._learned = [*dict.fromkeys(each.values for each in self.dictionaries), *bias]

    @contextmanager
    def at(self, step: int, x: Float[Tensor, "tokens m"]) -> Iterator[None]:
        """Inside, a step looks at these tokens: groups are made anew if it is time, and values stay as they are.

        What is learned of them there is added to the gradients in place, which begin at zero.
        """
        if step % GROUPS_EVERY == 0 or int(self.begun) > BEGUN * self.sae.n:
            self.encoder.grouped = None  # two layouts at once would take twice the memory
            with torch.no_grad():
                self.encoder.make_groups(x * self.sae.scale - self.sae.pre_bias, self.sae.latent_bias)
            self.begun.zero_()
        self.gradients.begin(*self._learned)
        for dictionary in self.dictionaries:
            dictionary.gradients = self.gradients
        try:
            with self._columns.held():
                yield
        finally:
            for dictionary in self.dictionaries:
                dictionary.gradients = None

    def began_anew(self, count: int) -> None:
        """Take in that so many columns are others than they were."""
        self.begun += count

    @property
    def _columns(self) -> GroupedColumns:
        assert self.encoder.grouped is not None
        return self.encoder.grouped

    def forget(self) -> None:
        """Free what only further steps would need."""
        self.encoder.grouped, self.gradients = None, GradientsInPlace()

    def state_dict(self) -> dict[str, Tensor]:
        """The groups in force, and how many columns began anew since they were made; there must have been a step."""
        groups = self._columns.groups._asdict()
        return {"looking/begun": self.begun, **{f"looking/{name}": tensor for name, tensor in groups.items()}}

    def load_groups(self, state: SavedTensors) -> None:
        """Look in the groups of a checkpoint."""
        groups = Groups(*(state[f"looking/{name}"] for name in Groups._fields))
        self.encoder.grouped = GroupedColumns(groups, self.encoder.rows)
