"""Columns that begin as tokens and are pruned while they learn: how the readable objective chooses rows.

Every column starts with the largest coordinates of one token, as many as the longest column may have. Every few steps
all columns together lose entries, along a cubic from that many to d on average: an entry is worth its square times a
power of its feature's energy, the running mean of its squared codes. Entries never come back and columns that lost
some keep the smaller norm, since rescaled ones, being their own encoders, overshoot. Features that are dead while the
columns are still long begin anew as tokens of high loss; later ones would not find their place, and have AuxK alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.distribution import Group
from expander_sae.philox import generator_seed
from expander_sae.training.alphabets import alphabets_of
from expander_sae.training.config import TrainConfig
from expander_sae.training.losses import Losses
from expander_sae.training.rows import (
    ENERGY_MEMORY,
    NEW_ENERGY,
    Wanted,
    afforded,
    columns_of_tokens,
    high_loss_numbers,
    moved_columns,
    place_columns,
    present_entries,
    reset_bias,
)

WINDOW = 4
"""Steps whose tokens a feature may begin anew as."""
REVIVING = 0.5
"""Dead features begin anew while the columns have this share of their first length on average."""


class ColumnPruning:
    """Counts what features explain, and takes entries from the columns of an autoencoder's dictionary."""

    def __init__(self, config: TrainConfig, sae: SparseAutoencoder, spread: Float[Tensor, " m"], group: Group) -> None:
        self.config, self.sae, self.group, self.spread = config, sae, group, spread
        self.alphabet = alphabets_of(sae, spread, config.signed)[0]
        self.dictionary = self.alphabet.columns
        like = sae.pre_bias.detach()
        self.tokens: Float[Tensor, "steps tokens m"] = like.new_zeros(WINDOW, config.batch, sae.m)
        self.residual = torch.zeros_like(self.tokens)
        self.squares: Float[Tensor, " n"] = like.new_zeros(sae.n)
        self.energy: Float[Tensor, " n"] = like.new_zeros(sae.n)
        self.mean_degree = self._count()

    def _count(self) -> float:
        return int((self.dictionary.rows >= 0).sum()) / self.dictionary.n

    def _target(self, step: int) -> float:
        """Entries per column after this step, on average."""
        done, until = self._done(step + 1), self.config.prune_until
        left = max(0.0, 1 - done / until) ** 3 if until else 0.0
        return self.config.degree + (self.config.lengths.longest(self.alphabet.size) - self.config.degree) * left

    def _done(self, steps: int) -> float:
        """The share that is over, after so many steps, of the run in which there are columns to prune."""
        alone = self.config.atoms_alone_until
        return (steps * self.config.batch / self.config.tokens - alone) / (1 - alone)

    def observe(self, step: int, losses: Losses, x: Float[Tensor, "tokens m"]) -> bool:
        """Count what step number `step` (from 0) used; gives back whether columns are to be pruned now."""
        if step > 0 and self._done(step) >= self.config.prune_until:
            return False
        self.squares.index_add_(0, losses.codes.indices.flatten(), losses.codes.values.flatten().square())
        centred = x.to(self.tokens.dtype) * self.sae.scale - self.sae.pre_bias.detach()
        for kept, new in ((self.tokens, centred), (self.residual, losses.residual)):
            kept[step % WINDOW] = nn.functional.pad(new, (0, 0, 0, kept.shape[1] - len(new)))
        after = self._done(step + 1)
        due = (step + 1) % self.config.move_every == 0 or after >= self.config.prune_until
        return due and after > 0

    @torch.no_grad()
    def move(
        self,
        step: int,
        dead: Int[Tensor, " dead"],
        optimizer: torch.optim.Optimizer,
        averages: Mapping[nn.Parameter, Tensor],
    ) -> Int[Tensor, " anew"]:
        """Prune the columns to what the budget pays for; gives back the features that began anew."""
        main, width, target = self.dictionary, self.alphabet.size, self._target(step)
        first = step < self.config.move_every
        self.energy.lerp_(self.group.add_up(self.squares), 1.0 if first else 1 - ENERGY_MEMORY)
        self.squares.zero_()
        anew = dead if target >= REVIVING * self.config.lengths.longest(width) else dead[:0]
        if len(anew):
            self._begin_anew(step, anew, round(target), optimizer, averages)
        worth = self.energy.pow(self.config.lengths.worth)
        wanted = present_entries(main.rows, main.values.detach(), worth, width)
        budget = int(main.n * target)
        kept = afforded(wanted, worth, width, budget, self.config.lengths.least, anew)
        features = torch.arange(main.n, device=dead.device)
        moved = moved_columns(main.rows, main.values.detach(), wanted, kept, width, keep_norms=False)
        place_columns([main], features, moved, optimizer, averages)
        self.mean_degree = self._count()
        return anew

    def _begin_anew(
        self,
        step: int,
        anew: Int[Tensor, " anew"],
        degree: int,
        optimizer: torch.optim.Optimizer,
        averages: Mapping[nn.Parameter, Tensor],
    ) -> None:
        """Give features tokens of high loss for columns, of the usual norm, bias and energy."""
        main, alphabet = self.dictionary, self.alphabet
        ordinary = alphabet.ordinary(anew)
        generator = torch.Generator().manual_seed(generator_seed(self.config.seed, step))
        residual, tokens = (self.group.gathered(each.flatten(0, 1)) for each in (self.residual, self.tokens))
        drawn = high_loss_numbers(residual, len(anew), generator)
        columns = columns_of_tokens(alphabet, tokens, drawn, degree, generator, alphabet.usual_norm())
        wanted = Wanted(*columns, self.energy[anew])
        kept = wanted.rows < alphabet.size
        moved = moved_columns(
            main.rows[anew], main.values.detach()[anew], wanted, kept, alphabet.size, keep_norms=False
        )
        moved.source.fill_(-1)
        place_columns([main], anew, moved, optimizer, averages)
        reset_bias(self.sae, anew, ordinary, optimizer, alphabet.first_bias(tokens, drawn, anew))
        others = self.energy[ordinary]
        self.energy[anew] = others.kthvalue(1 + int(NEW_ENERGY * (len(others) - 1))).values

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next pruning depends on."""
        state = {"moves/tokens": self.tokens, "moves/residual": self.residual, "moves/squares": self.squares}
        return state | {"moves/spread": self.spread, "moves/energy": self.energy, "rows": self.dictionary.rows}

    def load_rows(self, rows: Int[Tensor, "n d"]) -> None:
        """Put all columns where a checkpoint has them."""
        self.dictionary.place(torch.arange(self.dictionary.n, device=self.dictionary.device), rows)
        self.mean_degree = self._count()
