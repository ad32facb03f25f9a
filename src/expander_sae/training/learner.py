"""One dictionary in training: the autoencoder, its optimizer and its memory of who fired, and the step they take."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import BatchTopK
from expander_sae.dictionaries import (
    Codes,
    ComposedDictionary,
    ExpanderDictionary,
    columns_in,
    shards_of,
)
from expander_sae.distribution import Group, current_group
from expander_sae.errors import ExpanderError
from expander_sae.training.checkpoints import SavedTensors
from expander_sae.training.config import TrainConfig
from expander_sae.training.dead_features import FiringRecord
from expander_sae.training.looking import Looking
from expander_sae.training.losses import Losses, batch_statistics, losses_of
from expander_sae.training.metrics import Mean, Numbers
from expander_sae.training.pruning import ColumnPruning
from expander_sae.training.rows import ColumnMoves
from expander_sae.training.schedule import Schedule, rate_at
from expander_sae.training.start import Sample

THRESHOLD_MEMORY = 0.99
"""How much of the batch_topk threshold stays at every step."""
DEGREE_EXPONENT = 0.4
"""How fast the learning rate falls with the values per column."""
MOST_LIVING = 1 << 15
"""Columns that begin as tokens under topk and that the rate counts: of more, most never fire (at n=2^20, d=7, k=32 and
100,000 tokens, with AuxK, the held-out FVU was 0.433 at the rate of so many and 0.461 at that of all)."""
READABLE_RATE = 0.8
"""Share of the usual rate at which coordinates are learned for reading: fewer of the rare features fire, and features
mean more (at n=4608, d=7 token R2 .327 for .317, purity .489 for .477, at the same FVU)."""
STEPS = "step"
MOMENTS = ("exp_avg", "exp_avg_sq", STEPS)
"""What Adam remembers of every parameter: the last, a number, is of the parameter as a whole."""
WHOLE = "pre_bias"
"""The parameter that is no shard's alone."""


def learning_rate_rule(n: int, d: float, one_shot: bool) -> float:
    """The default peak for n columns of d values, with a one-shot coder or a pursuit.

    At n=4608 and d=7 it is 0.01 (0.06 with pursuit), lower with more values per column or more columns. Entries of a
    unit column are of the size 1/sqrt(d), and Adam's steps should be in proportion; the exponents are rounded from
    sweeps by factors of 2 on the residual stream of a 135M model (m=576, k=16, 200k to 600k tokens). Best were 0.01 for
    d=7, 0.006 for 64, 0.002 for dense (576), and with d=7 0.02 for n=1152, 0.01 for 4608 and 18432.
    """
    at_seven = 0.01 if one_shot else 0.06
    return at_seven * (7 / d) ** DEGREE_EXPONENT * (4608 / n) ** 0.25


class Descent:
    """Adam on the parameters of an autoencoder, its rate over a run, and what a checkpoint holds of both."""

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        peak: float,
        slower: Mapping[nn.Parameter, float] | None = None,
        shards: Group | None = None,
    ) -> None:
        """`slower` says what share of the rate some parameters learn at; shards hold a part of all but the biases."""
        self.module, self.schedule, self.peak, slower = module, schedule, peak, slower or {}
        self.shards = shards or Group()
        groups = [{"params": [parameter], "share": share} for parameter, share in slower.items()]
        others = [parameter for parameter in module.parameters() if parameter not in slower]
        groups.append({"params": others, "share": 1.0})
        self.adam = torch.optim.Adam(groups, lr=peak, betas=schedule.betas, fused=True)

    def begin(self, tokens: int, factor: float = 1.0) -> float:
        """Forget the last gradients; gives back the rate of the step that begins after this many tokens.

        The factor is what a learner makes of the schedule's rate.
        """
        rate = factor * rate_at(self.schedule, self.peak, tokens)
        for options in self.adam.param_groups:
            options["lr"] = options["share"] * rate
        self.forget()
        return rate

    def forget(self) -> None:
        """Free the gradients; the optimizer's own function takes as long as a pass over the batch."""
        for parameter in self.module.parameters():
            parameter.grad = None

    def step(self, group: Group) -> Float[Tensor, ""]:
        """Use the gradients of all processes together, shortened if they are too long; gives back their norm."""
        for name, parameter in self.module.named_parameters():
            if parameter.grad is not None:
                group.add_up(parameter.grad)
                if name == WHOLE:
                    self.shards.add_up(parameter.grad)
        norm = self._shortened()
        self.adam.step()
        return norm

    def _shortened(self) -> Float[Tensor, ""]:
        """Shorten the gradient, of all shards together, if it is too long; gives back its norm before."""
        if self.shards.world == 1:
            return torch.nn.utils.clip_grad_norm_(list(self.module.parameters()), self.schedule.clip)
        there = {name: each.grad for name, each in self.module.named_parameters() if each.grad is not None}
        whole = [there.pop(WHOLE)]
        square = self.shards.add_up(torch.nn.utils.get_total_norm(there.values()).square())
        norm = (square + torch.nn.utils.get_total_norm(whole).square()).sqrt()
        torch.nn.utils.clip_grads_with_norm_(list(self.module.parameters()), self.schedule.clip, norm)
        return norm

    def _learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that are not held fast, by name."""
        return (each for each in self.module.named_parameters() if each[1].requires_grad)

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and what Adam remembers of it, themselves and not copies; there must have been a step."""
        state = {}
        for name, parameter in self._learning():
            state[f"parameters/{name}"] = parameter.detach()
            for moment in MOMENTS:
                state[f"{moment}/{name}"] = self.adam.state[parameter][moment]
        return state

    def make_moments(self, state: SavedTensors) -> None:
        """Give Adam the memory that it had in `state`, to be filled by copying over `state_dict`."""
        for name, parameter in self._learning():
            steps = torch.empty_like(state[f"{STEPS}/{name}"], device=parameter.device)
            self.adam.state[parameter] = {
                moment: steps if moment == STEPS else torch.empty_like(parameter) for moment in MOMENTS
            }


class Trainee:
    """A dictionary that learns to reconstruct, one step per batch.

    What it makes small is `losses.losses_of`; how its columns change beside the gradient's steps is `rows`, or
    `pruning` with the readable objective.
    """

    def __init__(
        self,
        config: TrainConfig,
        sae: SparseAutoencoder,
        sample: Sample | None = None,
        group: Group | None = None,
    ) -> None:
        """The autoencoder itself learns, no copy. Only rows that are learned need a sample of the tokens."""
        self.config, self.sae, self.tokens = config, sae, 0
        self.group = current_group() if group is None else group
        if config.coding == "batch_topk" and self.group.world > 1:
            raise ExpanderError("batch_topk chooses among a whole batch, so it trains in one process; use topk.")
        degree = sae.m if config.d is None else config.d
        usual = learning_rate_rule(_counted(config), degree, config.one_shot)
        peak = config.learning_rate or usual * (READABLE_RATE if config.readable and not config.composed else 1.0)
        self.shards = shards_of(sae.dictionary)
        self.descent = Descent(sae, config, peak, _slower(sae, config, usual), self.shards)
        first = self.shards.rank * sae.n
        self.record = FiringRecord(sae.n, config.dead_tokens, sae.pre_bias.device, first)
        self.average = [parameter.detach().clone() for parameter in sae.parameters()] if config.average else []
        self.threshold = torch.zeros((), device=sae.pre_bias.device)
        self.looking = None if config.look is None else Looking(sae, self.group)
        self.moves: ColumnMoves | ColumnPruning | None = None
        if config.learns_rows:
            if sample is None:
                raise ExpanderError("Learned rows need a sample of the tokens; give one, or name a construction.")
            change = ColumnPruning if config.readable else ColumnMoves
            self.moves = change(config, sae, sample.spread, self.group)

    def step(self, x: Float[Tensor, "tokens m"]) -> Numbers:
        """Learn from a batch, or from this process's share of it."""
        x = x.to(self.sae.pre_bias.device, torch.promote_types(x.dtype, torch.float32))
        batch, rate = batch_statistics(x, self.group), self.descent.begin(self.tokens, self._rate_factor())
        dead = self._revived()
        step = self.tokens // self.config.batch
        with nullcontext() if self.looking is None else self.looking.at(step, x):
            losses = losses_of(self.config, self.sae, x, batch, dead.nonzero()[:, 0], self.group)
        losses.total.backward()  # type: ignore[no-untyped-call]
        norm = self._descend(rate, dead)
        self._remember(losses.fired, batch.tokens)
        self._move_columns(losses, x)
        return {
            "fvu": Mean(losses.squares, losses.variation),
            "auxk": Mean(self.group.add_up(losses.auxk.clone()), 1),
            "dead": self.shards.add_up(self.record.dead.float().mean()) / self.shards.world,
            "l0": Mean(self.group.add_up(losses.codes.l0.sum()), batch.tokens),
            "learning_rate": rate,
            "grad_norm": Mean(norm, 1),
        }

    def _rate_factor(self) -> float:
        """Steps in proportion to entries: columns that are still long have smaller ones."""
        if not isinstance(self.moves, ColumnPruning) or self.config.composed:
            return 1.0
        return (self.config.degree / self.moves.mean_degree) ** DEGREE_EXPONENT

    def _descend(self, rate: float, dead: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
        """Let the optimizer and whatever goes with its steps change the parameters; gives back the gradient's norm."""
        norm = self.descent.step(self.group)
        if self.sae.latent_bias is not None and self.config.lift_rate:
            self.sae.latent_bias.data.add_(dead.to(norm.dtype), alpha=self.config.lift_rate * rate)
        if self.config.unit_columns:
            self.sae.dictionary.normalise_columns()
        if self.average:
            parameters = [parameter.detach() for parameter in self.sae.parameters()]
            torch._foreach_lerp_(self.average, parameters, 1 - self.config.average)
        return norm

    def _revived(self) -> Bool[Tensor, " n"]:
        """The dead features that AuxK and a rising bias revive: none while so many are dead that most wait for a move.

        Over hundreds of steps both would make columns that fire for everything once they are found: at n=2^20 lifted
        ones raised the FVU from 0.43 to beyond 1 after 500,000 tokens, at 2^18 those of AuxK after 800,000.
        """
        dead = self.record.dead
        crowded = isinstance(self.moves, ColumnMoves) and self.moves.crowded(dead)
        return torch.zeros_like(dead) if crowded else dead

    def _remember(self, codes: Codes, tokens: int) -> None:
        """Who fired, and for batch_topk how small the smallest code was."""
        self.tokens += tokens
        self.record.update(codes, tokens, self.group)
        if self.config.coding == "batch_topk":
            sizes = codes.values.abs()
            smallest = torch.where(sizes > 0, sizes, torch.inf).amin().to(torch.float32)
            smallest = torch.where(smallest.isfinite(), smallest, self.threshold)  # a batch without any code
            if self.tokens == tokens:
                self.threshold.copy_(smallest)
            self.threshold.lerp_(smallest, 1 - THRESHOLD_MEMORY)

    def _move_columns(self, losses: Losses, x: Float[Tensor, "tokens m"]) -> None:
        """Let learned rows change, when it is time."""
        step = self.tokens // self.config.batch - 1
        if self.moves is None or not self.moves.observe(step, losses, x):
            return
        averages = dict(zip(self.sae.parameters(), self.average, strict=False))
        dead: Int[Tensor, " dead"] = self.record.dead.nonzero()[:, 0]
        anew = self.moves.move(step, dead, self.descent.adam, averages)
        self.record.silent_for[anew] = 0
        if self.looking is not None:
            self.looking.began_anew(len(anew))
        if self.config.unit_columns:
            self.sae.dictionary.normalise_columns()

    def forget_gradients(self) -> None:
        """Free what only further steps would need: of many features there are many gradients."""
        self.descent.forget()
        if self.looking is not None:
            self.looking.forget()

    @torch.no_grad()
    def finished(self) -> SparseAutoencoder:
        """A copy of the autoencoder as it is to be kept: with averaged weights and a fixed threshold, if there are."""
        sae = copy.deepcopy(self.sae)
        for parameter, average in zip(sae.parameters(), self.average, strict=False):
            parameter.copy_(average)
        if self.config.unit_columns:
            sae.dictionary.normalise_columns()
        if isinstance(sae.coder, BatchTopK):
            sae.coder = dataclasses.replace(sae.coder, threshold=float(self.threshold))
        return sae

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on; with `tokens`, all that there is."""
        state = {"silent_for": self.record.silent_for, "threshold": self.threshold, "scale": self.sae.scale}
        state |= self.descent.state_dict()
        state |= {} if self.moves is None else self.moves.state_dict()
        state |= {} if self.looking is None else self.looking.state_dict()
        columns = columns_in(self.sae.dictionary)
        if self.config.start is not None and isinstance(columns, ExpanderDictionary):
            state["rows"] = columns.rows
        names = [name for name, _ in self.sae.named_parameters()]
        return state | {f"average/{name}": tensor for name, tensor in zip(names, self.average, strict=False)}

    @torch.no_grad()
    def load_state_dict(self, state: SavedTensors, tokens: int) -> None:
        """Be again what `state_dict` was taken of, after this many tokens, in however many shards that lay."""
        self.descent.make_moments(state)
        self.tokens, first, of_columns = tokens, self.shards.rank * self.sae.n, self._of_columns()
        if self.moves is not None:
            self.moves.load_rows(state.rows("rows", first, self.sae.n))
        elif "rows" in state and not torch.equal(
            state["rows"], columns_in(self.sae.dictionary).get_buffer("rows").cpu()
        ):
            raise ExpanderError(f"{self.config.start} has other rows than when this run began; start anew from it.")
        if self.looking is not None:
            self.looking.load_groups(state)
        for name, tensor in self.state_dict().items():
            tensor.copy_(state.rows(name, first, len(tensor)) if name in of_columns else state[name])

    def _of_columns(self) -> set[str]:
        """The tensors of the state that have a row for every column."""
        of_columns = {name for name, _ in self.sae.named_parameters() if name != WHOLE}
        kinds = {"parameters", "average", *MOMENTS} - {STEPS}
        return {"silent_for", "rows", "moves/energy", *(f"{kind}/{name}" for kind in kinds for name in of_columns)}


def _counted(config: TrainConfig) -> int:
    """The columns that make the learning rate of a dictionary lower."""
    begin_as_tokens = config.learns_rows and config.one_shot and not config.readable and not config.composed
    return min(config.n, MOST_LIVING) if begin_as_tokens else config.n


def _slower(sae: SparseAutoencoder, config: TrainConfig, usual: float) -> dict[nn.Parameter, float]:
    """The share of the rate that some learn at: atoms at what a dense dictionary of them would have, beside the usual
    one, and not at all what is held."""
    composed = [each for each in dict.fromkeys((sae.dictionary, sae.encoder)) if isinstance(each, ComposedDictionary)]
    slower = {each.atoms.values: learning_rate_rule(each.atoms.n, sae.m, config.one_shot) / usual for each in composed}
    if config.hold_encoder:
        held = [*sae.encoder.parameters(), *([] if sae.latent_bias is None else [sae.latent_bias])]
        slower |= dict.fromkeys(held, 0.0)
    return slower
