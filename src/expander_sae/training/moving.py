"""When a dictionary with learned rows moves its columns, and what its optimizer keeps of the entries that moved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes, ExpanderDictionary
from expander_sae.distribution import Group
from expander_sae.training.config import TrainConfig
from expander_sae.training.learned_rows import (
    WINDOW,
    Wanted,
    afforded,
    high_loss_tokens,
    moved_columns,
    rows_of_largest,
    wanted_entries,
)

ENERGY_MEMORY = 0.8
"""How much of a column's sum of squared codes stays at every move."""


NEW_ENERGY = 0.5
"""A column that begins anew is taken to be as busy as this share of all are at most: less leaves more of them dead."""


class ColumnMoves:
    """Watches the last steps before each move, then moves the columns of an autoencoder's dictionary and encoder."""

    def __init__(self, config: TrainConfig, sae: SparseAutoencoder, spread: Float[Tensor, " m"], group: Group) -> None:
        self.config, self.sae, self.group, self.spread = config, sae, group, spread
        self.dictionaries = [
            dictionary for dictionary in dict.fromkeys((sae.dictionary, sae.encoder))
            if isinstance(dictionary, ExpanderDictionary)
        ]  # fmt: skip
        steps = max(1, min(config.move_every, WINDOW // config.batch))
        tokens = config.batch  # any share of a batch fits
        like = sae.pre_bias.detach()
        self.residual: Float[Tensor, "steps tokens m"] = like.new_zeros(steps, tokens, sae.m)
        self.codes: Float[Tensor, "steps tokens k"] = like.new_zeros(steps, tokens, config.k)
        self.indices: Int[Tensor, "steps tokens k"] = torch.zeros_like(self.codes, dtype=torch.int64)
        self.energy: Float[Tensor, " n"] = like.new_zeros(sae.n)

    def observe(self, step: int, codes: Codes, residual: Float[Tensor, "tokens m"]) -> bool:
        """Remember step number `step` (from 0) if the next move will look at it; gives back whether that is due now."""
        last = (step + 1) % self.config.move_every == 0
        slot = step % self.config.move_every - (self.config.move_every - len(self.residual))
        if slot < 0 or (step + 1) * self.config.batch > self.config.move_until * self.config.tokens:
            return False
        for kept, new in ((self.residual, residual), (self.codes, codes.values), (self.indices, codes.indices)):
            kept[slot] = nn.functional.pad(new, (0, 0, 0, kept.shape[1] - len(new)))
        return last

    @torch.no_grad()
    def move(
        self,
        step: int,
        dead: Int[Tensor, " dead"],
        optimizer: torch.optim.Optimizer,
        averages: Mapping[nn.Parameter, Tensor],
    ) -> None:
        """Move the columns that fired, and begin the dead ones anew; the moments of new entries start from zero."""
        residual = self.residual.flatten(0, 1)
        codes = Codes(self.codes.flatten(0, 1), self.indices.flatten(0, 1), self.sae.n)
        main, width = self.dictionaries[0], self.sae.m
        new_rows, new_values = self._new_columns(step, len(dead), residual)
        if self.config.one_shot:
            features, wanted = dead, Wanted(new_rows, new_values, self.energy[dead])
            kept = wanted.rows < width
        else:
            features = torch.arange(main.n, device=dead.device)
            wanted = wanted_entries(main.rows, main.values.detach(), codes, residual, self.group)
            wanted.rows[dead], wanted.values[dead] = new_rows, new_values
            self.energy.lerp_(wanted.energy, 1.0 if step < self.config.move_every else 1 - ENERGY_MEMORY)
            # With no energy a column that just began would lose its entries at once.
            self.energy[dead] = self.energy.kthvalue(1 + int(NEW_ENERGY * (main.n - 1))).values
            kept = afforded(wanted, self.energy, width, self.config.entries, self.config.least, dead)
        moved = moved_columns(main.rows[features], main.values.detach()[features], wanted, kept, width)
        moved.source[torch.isin(features, dead)] = -1
        self._place(features, moved.rows, moved.values, moved.source, optimizer, averages)
        self._reset_bias(dead, optimizer)

    def _new_columns(
        self, step: int, count: int, residual: Float[Tensor, "tokens m"]
    ) -> tuple[Int[Tensor, "count d"], Float[Tensor, "count d"]]:
        """Rows and values for columns that begin anew, of the size of the others."""
        main, degree = self.dictionaries[0], self.config.degree
        if count == 0:
            return main.rows[:0].long(), main.values.detach()[:0]
        generator = torch.Generator().manual_seed((self.config.seed << 32) + step)
        tokens = high_loss_tokens(self.group.gathered(residual), count, generator)
        rows, values = rows_of_largest(tokens, self.spread, count, degree)
        beyond = (0, main.d - degree)
        return (
            nn.functional.pad(rows.long(), beyond, value=self.sae.m),
            nn.functional.pad(values * main.norms().median(), beyond),
        )

    def _place(
        self,
        features: Int[Tensor, " f"],
        rows: Int[Tensor, "f d"],
        values: Float[Tensor, "f d"],
        source: Int[Tensor, "f d"],
        optimizer: torch.optim.Optimizer,
        averages: Mapping[nn.Parameter, Tensor],
    ) -> None:
        for dictionary in self.dictionaries:
            parameter, state = dictionary.values, optimizer.state[dictionary.values]
            squares, there = state["exp_avg_sq"][features], dictionary.rows[features] >= 0
            usual = squares.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True)
            fresh = [
                (state["exp_avg"], torch.zeros_like(values)),
                (state["exp_avg_sq"], usual.expand_as(values)),
            ]
            fresh += [(averages[parameter], values)] if parameter in averages else []
            for tensor, new in fresh:
                tensor[features] = _relocated(tensor[features], source, new) * (rows >= 0)
            own = values if dictionary is self.dictionaries[0] else _relocated(parameter[features], source, values)
            dictionary.place(features, rows, own)

    def _reset_bias(self, dead: Int[Tensor, " dead"], optimizer: torch.optim.Optimizer) -> None:
        """Let features that begin anew have the bias of an ordinary one."""
        bias = self.sae.latent_bias
        if bias is not None:
            bias[dead] = bias.median()
            optimizer.state[bias]["exp_avg"][dead] = 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next move depends on."""
        state = {"moves/residual": self.residual, "moves/codes": self.codes, "moves/indices": self.indices}
        state |= {"moves/spread": self.spread, "moves/energy": self.energy}
        return state | {"rows": self.dictionaries[0].rows}

    def load_rows(self, rows: Int[Tensor, "n d"]) -> None:
        """Put all columns where a checkpoint has them."""
        for dictionary in self.dictionaries:
            dictionary.place(torch.arange(dictionary.n, device=dictionary.device), rows)


def _relocated(old: Float[Tensor, "f d"], source: Int[Tensor, "f d"], new: Float[Tensor, "f d"]) -> Tensor:
    """The entries that stay, at their new slots, and new ones elsewhere."""
    return torch.where(source >= 0, old.gather(1, source.clamp_min(0)), new)
