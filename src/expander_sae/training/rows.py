"""Learned rows: columns start where the data is large, and move to where the residual wants them.

Columns are fitted by iterative hard thresholding. From the codes of some recent tokens, each coordinate's least-squares
change is (sum of code * residual) / (sum of code^2); what is wanted are the coordinates that would then be largest. So
nothing has to be said about how many entries move: a column at rest stays where it is. All columns share a budget of
entries: an entry is worth its square times the sum of its column's squared codes, which is what it explains, and the
most valuable ones are kept. Dead columns begin anew where the tokens with the largest residuals are large. Codes and
residuals of a window of tokens are held, and the changes of some columns at a time, so memory never grows with n * m.

`ColumnMoves` is all that a trainee knows of it: it observes steps, moves columns when that is due, and has a state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes, ExpanderDictionary, shards_of
from expander_sae.distribution import Group
from expander_sae.kernels.changes import CodesByFeature, codes_by_feature, in_order, largest_entries, relocate
from expander_sae.philox import generator_seed
from expander_sae.training.alphabets import Alphabet, Coordinates, alphabets_of
from expander_sae.training.config import TrainConfig
from expander_sae.training.losses import Losses

WINDOW = 8192
"""Tokens, about, whose codes and residuals a move looks at."""
FEWEST = 5
"""Times that a feature must have fired in them for its column to move."""
CHUNK_COLUMNS = 1 << 15
"""Columns that begin anew at a time."""
CHUNK_ELEMENTS = 1 << 23
"""Changes held at a time."""
ENERGY_MEMORY = 0.8
"""How much of a column's sum of squared codes stays at every move."""
NEW_ENERGY = 0.5
"""A column that begins anew is taken to be as busy as this share of all are at most: less leaves more of them dead."""


class ColumnMoves:
    """Watches the last steps before each move, then moves the columns of an autoencoder's dictionary and encoder."""

    def __init__(self, config: TrainConfig, sae: SparseAutoencoder, spread: Float[Tensor, " m"], group: Group) -> None:
        self.config, self.sae, self.group, self.spread = config, sae, group, spread
        self.alphabets = alphabets_of(sae, spread, config.signed)
        self.dictionaries = [alphabet.columns for alphabet in self.alphabets]
        steps = max(1, min(config.move_every, WINDOW // config.batch))
        tokens = config.batch  # any share of a batch fits
        like = sae.pre_bias.detach()
        self.residual: Float[Tensor, "steps tokens m"] = like.new_zeros(steps, tokens, sae.m)
        # Under a one-shot encoder no column moves but those that begin anew, for which nobody asks who fired.
        kept = 0 if config.one_shot else config.k
        self.codes: Float[Tensor, "steps tokens kept"] = like.new_zeros(steps, tokens, kept)
        self.indices: Int[Tensor, "steps tokens kept"] = torch.zeros_like(self.codes, dtype=torch.int64)
        self.energy: Float[Tensor, " n"] = like.new_zeros(sae.n)

    def observe(self, step: int, losses: Losses, x: Float[Tensor, "tokens m"]) -> bool:
        """Remember step number `step` (from 0) if the next move will look at it; gives back whether that is due now."""
        last = (step + 1) % self.config.move_every == 0
        slot = step % self.config.move_every - (self.config.move_every - len(self.residual))
        if slot < 0 or (step + 1) * self.config.batch > self.config.move_until * self.config.tokens:
            return False
        seen = [(self.residual, losses.residual)]
        if not self.config.one_shot:
            seen += [(self.codes, losses.codes.values), (self.indices, losses.codes.indices)]
        for kept, new in seen:
            kept[slot, : len(new)], kept[slot, len(new) :] = new, 0
        return last

    @torch.no_grad()
    def move(
        self,
        step: int,
        dead: Int[Tensor, " dead"],
        optimizer: torch.optim.Optimizer,
        averages: Mapping[nn.Parameter, Tensor],
    ) -> Int[Tensor, " anew"]:
        """Move the columns that fired, and begin dead ones anew, which are given back."""
        main, width = self.dictionaries[0], self.alphabets[0].size
        begun = self._to_begin(dead)
        for features, anew, wanted, kept in self._changes(step, begun):
            rows, values = (each.index_select(0, features) for each in (main.rows, main.values.detach()))
            moved = moved_columns(rows, values, wanted, kept, width)
            moved.source[anew] = -1
            place_columns(self.dictionaries, features, moved, optimizer, averages)
        reset_bias(self.sae, begun, self.alphabets[0].ordinary(begun), optimizer)
        return begun

    def crowded(self, dead: Bool[Tensor, " n"]) -> bool:
        """Whether more columns are dead than begin anew at a move, so that most of them wait."""
        coordinates = isinstance(self.alphabets[0], Coordinates)
        most = len(self.residual) * self.config.batch
        return coordinates and shards_of(self.dictionaries[0]).total(int(dead.sum())) > most

    def _to_begin(self, dead: Int[Tensor, " dead"]) -> Int[Tensor, " begun"]:
        """The dead columns that begin anew now: of coordinates a token makes one column, so no more than one a token.

        More would be copies, which all fire together. The others wait as they are, for the next move or for a token.
        Those of all shards are chosen together, evenly over the features, and so the same in however many they lie.
        """
        if not isinstance(self.alphabets[0], Coordinates):
            return dead
        shards = shards_of(self.dictionaries[0])
        counts = [each for (each,) in shards.numbers([len(dead)])]
        count, first = sum(counts), sum(counts[: shards.rank])
        if count == 0:
            return dead
        tokens = int(self.group.add_up((torch.linalg.vector_norm(self.residual, dim=2) > 0).sum()))
        chosen = torch.arange(min(count, tokens), device=dead.device) * count // max(1, min(count, tokens))
        return dead[chosen[(chosen >= first) & (chosen < first + len(dead))] - first]

    def _changes(self, step: int, dead: Int[Tensor, " dead"]) -> Iterator[Change]:
        """What is to change: in all columns, or in those that begin anew, some of them at a time."""
        residual, width = self.residual.flatten(0, 1), self.alphabets[0].size
        new = self._new_columns(step, len(dead), residual)
        if self.config.one_shot:
            start = 0
            for rows, values in new:
                features = dead[start : start + len(rows)]
                start += len(rows)
                yield Change(features, slice(None), Wanted(rows, values, self.energy[features]), rows < width)
            return
        main = self.dictionaries[0]
        codes = Codes(self.codes.flatten(0, 1), self.indices.flatten(0, 1), main.coded)
        wanted = wanted_entries(main.rows, main.values.detach(), codes, self.alphabets[0].seen(residual), self.group)
        pieces = list(new)
        if pieces:
            wanted.rows[dead], wanted.values[dead] = (torch.cat(part) for part in zip(*pieces, strict=True))
        self.energy.lerp_(wanted.energy, 1.0 if step < self.config.move_every else 1 - ENERGY_MEMORY)
        # With no energy a column that just began would lose its entries at once.
        self.energy[dead] = self.energy.kthvalue(1 + int(NEW_ENERGY * (main.n - 1))).values
        kept = afforded(wanted, self.energy, width, self.config.entries, self.config.lengths.least, dead)
        yield Change(torch.arange(main.n, device=dead.device), dead, wanted, kept)

    def _new_columns(
        self, step: int, count: int, residual: Float[Tensor, "tokens m"]
    ) -> Iterator[tuple[Int[Tensor, "some d"], Float[Tensor, "some d"]]]:
        """Rows and values for columns that begin anew, of the size of the others, some at a time."""
        shards = shards_of(self.dictionaries[0])
        counts = [each for (each,) in shards.numbers([count])]
        if sum(counts) == 0:
            return
        generator = torch.Generator().manual_seed(generator_seed(self.config.seed, step))
        tokens, alphabet = self.group.gathered(residual), self.alphabets[0]
        # Those of all shards are drawn together, so that the columns are the same in however many they lie.
        drawn, norm = high_loss_numbers(tokens, sum(counts), generator), alphabet.usual_norm()
        first = sum(counts[: shards.rank])
        for chunk in torch.split(drawn[first : first + count], CHUNK_COLUMNS):
            if len(chunk):
                yield columns_of_tokens(alphabet, tokens, chunk, self.config.degree, generator, norm)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next move depends on."""
        state = {"moves/residual": self.residual, "moves/codes": self.codes, "moves/indices": self.indices}
        state |= {"moves/spread": self.spread, "moves/energy": self.energy}
        return state | {"rows": self.dictionaries[0].rows}

    def load_rows(self, rows: Int[Tensor, "n d"]) -> None:
        """Put all columns where a checkpoint has them."""
        for dictionary in self.dictionaries:
            dictionary.place(torch.arange(dictionary.n, device=dictionary.device), rows)


def columns_of_tokens(
    alphabet: Alphabet,
    tokens: Float[Tensor, "tokens m"],
    drawn: Int[Tensor, " count"],
    degree: int,
    generator: torch.Generator,
    norm: Float[Tensor, ""],
) -> tuple[Int[Tensor, "count d"], Float[Tensor, "count d"]]:
    """Rows, `size` behind the last one, and values of columns of this norm that write the drawn of these tokens."""
    rows, values = alphabet.of_tokens(tokens, drawn, degree, generator)
    beyond = (0, alphabet.columns.d - degree)
    return (
        nn.functional.pad(rows.long(), beyond, value=alphabet.size),
        nn.functional.pad(values * norm, beyond),
    )


def place_columns(
    dictionaries: Sequence[ExpanderDictionary],
    features: Int[Tensor, " f"],
    moved: Moved,
    optimizer: torch.optim.Optimizer,
    averages: Mapping[nn.Parameter, Tensor],
) -> None:
    """Put columns where they moved to, and what the optimizer remembers of their entries with them.

    The first dictionary takes the moved values, the others theirs; new entries have no momentum and a usual square.
    A column that keeps its rows keeps its values too, unless it begins anew: then it has no entry from before.
    """
    different = (moved.rows != dictionaries[0].rows.index_select(0, features)).sum(dim=1)
    changed = ((different > 0) | (moved.source[:, 0] < 0)).nonzero()[:, 0]
    features, moved = features[changed], Moved(*(part.index_select(0, changed) for part in moved))
    for dictionary in dictionaries:
        parameter, state = dictionary.values, optimizer.state[dictionary.values]
        squares, there = state["exp_avg_sq"].index_select(0, features), dictionary.rows.index_select(0, features) >= 0
        usual = squares.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True)
        fresh = [(state["exp_avg"], torch.zeros_like(usual)), (state["exp_avg_sq"], usual)]
        fresh += [(averages[parameter], moved.values)] if parameter in averages else []
        first = dictionary is dictionaries[0]
        fresh += [] if first else [(parameter, moved.values)]
        for entries, new in fresh:
            relocate(entries, features, moved.rows, moved.source, new)
        dictionary.place(features, moved.rows, moved.values if first else None)


def reset_bias(
    sae: SparseAutoencoder,
    dead: Int[Tensor, " dead"],
    ordinary: Bool[Tensor, " n"],
    optimizer: torch.optim.Optimizer,
    first: Float[Tensor, " dead"] | None = None,
) -> None:
    """Let features that begin anew have the bias of an ordinary one, or their own first one."""
    bias = sae.latent_bias
    if bias is not None:
        bias[dead] = shards_of(sae.dictionary).gathered(bias[ordinary]).median() if first is None else first
        optimizer.state[bias]["exp_avg"][dead] = 0.0


class Wanted(NamedTuple):
    """The entries that columns would like to have, most wanted first."""

    rows: Int[Tensor, "n d"]
    """m where a column wants no more."""
    values: Float[Tensor, "n d"]
    energy: Float[Tensor, " n"]
    """The sum of every column's squared codes."""


class Change(NamedTuple):
    """What some columns would like, and what of it they get."""

    features: Int[Tensor, " f"]
    anew: Int[Tensor, " anew"] | slice
    """Where in their list those are that begin anew."""
    wanted: Wanted
    kept: Bool[Tensor, "f d"]


class Moved(NamedTuple):
    """Columns after a move."""

    rows: Int[Tensor, "f d"]
    """Ascending, then -1."""
    values: Float[Tensor, "f d"]
    source: Int[Tensor, "f d"]
    """The slot where an entry was before, or -1 for an entry that is new."""


def present_entries(
    rows: Int[Tensor, "n d"], values: Float[Tensor, "n d"], energy: Float[Tensor, " n"], width: int
) -> Wanted:
    """What columns want that want to stay as they are."""
    largest = values.abs().sort(dim=1, descending=True, stable=True).indices
    there = torch.where(rows < 0, width, rows).long()
    return Wanted(there.gather(1, largest), values.gather(1, largest), energy)


def wanted_entries(
    rows: Int[Tensor, "n d"],
    values: Float[Tensor, "n d"],
    codes: Codes,
    residual: Float[Tensor, "tokens m"],
    group: Group,
) -> Wanted:
    """Columns that fired often enough want their d largest entries, and all others what they have."""
    features, weights = codes.indices.flatten(), codes.values.flatten()
    fired = weights.new_zeros(len(rows)).index_add_(0, features, (weights != 0).to(weights.dtype))
    energy = weights.new_zeros(len(rows)).index_add_(0, features, weights.square())
    fired, energy = group.add_up(fired), group.add_up(energy)
    often = fired >= FEWEST
    seldom, often = (~often).nonzero()[:, 0], often.nonzero()[:, 0]
    wanted = Wanted(torch.empty_like(rows, dtype=torch.int64), torch.empty_like(values), energy)
    at_rest = present_entries(rows[seldom], values[seldom], energy[seldom], residual.shape[1])
    wanted.rows[seldom], wanted.values[seldom] = at_rest.rows, at_rest.values
    by_feature = codes_by_feature(codes.values, codes.indices, len(rows))
    for chunk in torch.split(often, max(1, CHUNK_ELEMENTS // residual.shape[1])) if len(often) else ():
        change = group.add_up(_changes(chunk, by_feature, residual)).div_(energy[chunk, None])
        largest = largest_entries(change, values.index_select(0, chunk), rows.index_select(0, chunk))
        wanted.rows.index_copy_(0, chunk, largest[0])
        wanted.values.index_copy_(0, chunk, largest[1])
    return wanted


def afforded(
    wanted: Wanted, energy: Float[Tensor, " n"], width: int, budget: int, least: int, whole: Int[Tensor, " w"]
) -> Bool[Tensor, "n d"]:
    """Which wanted entries the budget pays for: the most valuable of all columns.

    Every column has its first `least` ones, and the columns `whole` have all that they want.
    """
    worth = wanted.values.square() * energy[:, None]
    worth[whole] = torch.inf
    worth[:, :least] = torch.inf
    worth = torch.where(wanted.rows == width, -torch.inf, worth).flatten()
    # All those above the last one that is bought, and of its equals the first: sorting took ten times as long.
    last = worth.kthvalue(max(1, len(worth) - budget + 1)).values
    kept, equal = worth > last, worth == last
    kept |= equal & (equal.cumsum(0) <= budget - kept.sum())
    return (kept & (worth > -torch.inf)).reshape(wanted.rows.shape)


def moved_columns(
    rows: Int[Tensor, "f d"],
    values: Float[Tensor, "f d"],
    wanted: Wanted,
    kept: Bool[Tensor, "f d"],
    width: int,
    keep_norms: bool = True,
) -> Moved:
    """The columns with the wanted entries that are kept; every column keeps its norm, unless it may not."""
    placed, moved, source = in_order(wanted.rows, wanted.values, kept & (wanted.rows < width), rows)
    if keep_norms:
        # One that grew would be taken more often and, being its own encoder, overshoot and be moved back: it diverges.
        norms = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
        moved = moved * torch.where(norms > 0, torch.linalg.vector_norm(values, dim=1, keepdim=True) / norms, 1.0)
    return Moved(placed, moved, source)


def _changes(
    features: Int[Tensor, " f"], by_feature: CodesByFeature, residual: Float[Tensor, "tokens m"]
) -> Float[Tensor, "f m"]:
    """The sum of code * residual over the codes of each feature."""
    counts = by_feature.starts[features + 1] - by_feature.starts[features]
    ends = counts.cumsum(0)
    shift = (by_feature.starts[features] - (ends - counts)).repeat_interleave(counts)
    codes = torch.arange(int(ends[-1]), device=residual.device) + shift
    return nn.functional.embedding_bag(
        by_feature.tokens.index_select(0, codes),
        residual,
        ends - counts,
        mode="sum",
        per_sample_weights=by_feature.weights.index_select(0, codes).to(residual.dtype),
    )


def high_loss_tokens(
    residual: Float[Tensor, "tokens m"],
    count: int,
    generator: torch.Generator,
    tokens: Float[Tensor, "tokens m"] | None = None,
) -> Float[Tensor, "count m"]:
    """Residuals drawn in proportion to their squared norms, distinct as long as there are enough; or their tokens."""
    return (residual if tokens is None else tokens)[high_loss_numbers(residual, count, generator)]


def high_loss_numbers(
    residual: Float[Tensor, "tokens m"], count: int, generator: torch.Generator
) -> Int[Tensor, " count"]:
    """Which tokens these are."""
    norms = torch.linalg.vector_norm(residual, dim=1).cpu()
    order = norms.argsort(stable=True)  # the same whichever process had which token
    order = order[norms[order] > 0]
    if len(order) == 0:
        return torch.zeros(count, dtype=torch.int64, device=residual.device)
    drawn = torch.multinomial(
        norms[order].double().square(), count, replacement=len(order) < count, generator=generator
    )
    return order[drawn].to(residual.device)
