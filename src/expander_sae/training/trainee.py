"""One dictionary in training: the autoencoder, its optimizer and its memory of who fired, and the step they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import BatchTopK, TopK
from expander_sae.dictionaries import Codes, ExpanderDictionary
from expander_sae.distribution import Group
from expander_sae.errors import ExpanderError
from expander_sae.training.building import Sample
from expander_sae.training.config import TrainConfig
from expander_sae.training.dead_features import FiringRecord, auxk_loss
from expander_sae.training.losses import BatchStatistics, fvu
from expander_sae.training.metrics import StepMetrics
from expander_sae.training.moving import ColumnMoves
from expander_sae.training.optimizer_state import learned_state, make_moments
from expander_sae.training.schedule import learning_rate_rule, rate_at

MULTI = 4
"""How many times more features multi_topk looks at."""
MULTI_WEIGHT = 1 / 8
"""What its loss counts."""
THRESHOLD_MEMORY = 0.99
"""How much of the batch_topk threshold stays at every step."""


class Trainee:
    """A dictionary that learns, one step per batch."""

    def __init__(self, config: TrainConfig, sae: SparseAutoencoder, group: Group, sample: Sample) -> None:
        self.config, self.sae, self.group = config, sae, group
        if config.coding == "batch_topk" and group.world > 1:
            raise ExpanderError("batch_topk chooses among a whole batch, so it trains in one process; use topk.")
        self.tokens, self.peak = 0, config.learning_rate or learning_rate_rule(config, sae.m)
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=self.peak, betas=config.betas, fused=True)
        self.record = FiringRecord(sae.n, config.dead_tokens, sae.pre_bias.device)
        self.average = [parameter.detach().clone() for parameter in sae.parameters()] if config.average else []
        self.threshold = torch.zeros((), device=sae.pre_bias.device)
        self.moves = ColumnMoves(config, sae, sample.spread, group) if config.learns_rows else None

    def step(self, x: Float[Tensor, "tokens m"], statistics: BatchStatistics) -> StepMetrics:
        """Learn from a batch; `statistics` are of the whole batch, x is this process's share."""
        rate = rate_at(self.config, self.peak, self.tokens)
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        x = x.to(self.sae.pre_bias.dtype)
        self.optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            codes, residual = self.sae.residual(x)
        total = statistics.variation.to(x.dtype) * self.sae.scale.to(x.dtype) ** 2
        loss = fvu(residual, total)
        squares = self.group.add_up((loss * total).detach())
        auxk = self._auxk(residual.detach(), squares, statistics.tokens)
        (loss + self.config.auxk_weight * auxk + self._multi(x, total)).backward()  # type: ignore[no-untyped-call]
        norm = self._move(rate)
        self._remember(codes.detach(), statistics.tokens)
        self._move_columns(codes.detach(), residual.detach())
        return StepMetrics(
            tokens=statistics.tokens,
            squares=squares,
            variation=total,
            auxk=self.group.add_up(auxk.detach().clone()),
            active=self.group.add_up(codes.l0.sum()),
            dead=self.record.dead.float().mean(),
            grad_norm=norm,
            learning_rate=rate,
        )

    def _auxk(self, residual: Float[Tensor, "tokens m"], squares: Float[Tensor, ""], tokens: int) -> Float[Tensor, ""]:
        """The loss of the dead features, zero if there are none; `squares` and `tokens` are of all processes."""
        dead = self.record.dead.nonzero()[:, 0]
        if not self.config.auxk_weight or len(dead) == 0:
            return residual.new_zeros(())
        around_mean = squares - self.group.add_up(residual.sum(dim=0)).square().sum() / tokens
        return auxk_loss(self.sae, residual, dead, self.config.revived_together(self.sae.m), around_mean)

    def _multi(self, x: Float[Tensor, "tokens m"], total: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The loss with more features per token, as much as it counts."""
        if not self.config.multi_topk:
            return x.new_zeros(())
        wider = self.sae.with_coder(TopK(MULTI * self.config.k, self.config.signed))
        return MULTI_WEIGHT * fvu(wider.residual(x)[1], total)

    def _move(self, rate: float) -> Tensor:
        """Let the optimizer use the gradients of all processes; gives back their norm."""
        parameters = list(self.sae.parameters())
        for parameter in parameters:
            if parameter.grad is not None:
                self.group.add_up(parameter.grad)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
        self.optimizer.step()
        if self.sae.latent_bias is not None and self.config.lift:
            self.sae.latent_bias.data.add_(self.record.dead.to(norm.dtype), alpha=self.config.lift * rate)
        if self.config.unit_columns:
            self.sae.dictionary.normalise_columns()
        if self.average:
            torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - self.config.average)
        return norm

    def _move_columns(self, codes: Codes, residual: Float[Tensor, "tokens m"]) -> None:
        """Let learned rows move, when it is time."""
        step = self.tokens // self.config.batch - 1
        if self.moves is None or not self.moves.observe(step, codes, residual):
            return
        averages = dict(zip(self.sae.parameters(), self.average, strict=False))
        dead = self.record.dead.nonzero()[:, 0]
        self.moves.move(step, dead, self.optimizer, averages)
        self.record.silent_for[dead] = 0
        if self.config.unit_columns:
            self.sae.dictionary.normalise_columns()

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

    @torch.no_grad()
    def finished(self) -> SparseAutoencoder:
        """The autoencoder to keep: with averaged weights and a fixed threshold, if there are such."""
        for parameter, average in zip(self.sae.parameters(), self.average, strict=False):
            parameter.copy_(average)
        if self.config.unit_columns:
            self.sae.dictionary.normalise_columns()
        if isinstance(self.sae.coder, BatchTopK):
            self.sae.coder = dataclasses.replace(self.sae.coder, threshold=float(self.threshold))
        return self.sae

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on; with `tokens`, all that there is."""
        state = {"silent_for": self.record.silent_for, "threshold": self.threshold, "scale": self.sae.scale}
        state |= learned_state(self.sae, self.optimizer)
        state |= {} if self.moves is None else self.moves.state_dict()
        if self.config.start is not None and isinstance(self.sae.dictionary, ExpanderDictionary):
            state["rows"] = self.sae.dictionary.rows
        names = [name for name, _ in self.sae.named_parameters()]
        return state | {f"average/{name}": tensor for name, tensor in zip(names, self.average, strict=False)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], tokens: int) -> None:
        """Be again what `state_dict` was taken of, after this many tokens."""
        make_moments(self.sae, self.optimizer, state)
        self.tokens = tokens
        if self.moves is not None:
            self.moves.load_rows(state["rows"])
        elif "rows" in state and not torch.equal(state["rows"], self.sae.dictionary.get_buffer("rows").cpu()):
            raise ExpanderError(f"{self.config.start} has other rows than when this run began; start anew from it.")
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
