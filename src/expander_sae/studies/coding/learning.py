"""How dictionaries, encoders and codes are found by gradient steps, from what is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder
from expander_sae.coders.base import code_in_chunks
from expander_sae.coders.fista import SAFETY, largest_eigenvalue
from expander_sae.coders.lasso import largest_penalty
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.distribution import current_group
from expander_sae.means import Patience
from expander_sae.studies.coding.config import DENSE, KNOWN_CODES, MLP, NEITHER, RELU, CodingConfig
from expander_sae.studies.coding.world import Tokens
from expander_sae.studies.encoders import LinearEncoder, MLPEncoder, keep_largest
from expander_sae.supports import Support
from expander_sae.training import (
    FiringRecord,
    Numbers,
    Sample,
    TensorBatches,
    TrainConfig,
    Trainee,
    high_loss_tokens,
    learn,
    new_autoencoder,
    rows_of_largest,
)

RESTART_EVERY, RESTART_UNTIL = 50, 0.7
"""Steps between restarts of dead features, and the share of all steps after which there are none any more."""
DEAD_AFTER = 5_000
"""Tokens without firing after which a feature of an encoder counts as dead."""
RIDGE = 1e-4
"""Ridge of the least squares for columns, as a share of the mean energy of a feature."""
_ARRAYS = 6  # [tokens, n] that gradient steps hold at a time


AnyEncoder = LinearEncoder | MLPEncoder


@dataclass(frozen=True)
class Learned:
    """A dictionary of unit columns, and the offset that all tokens share."""

    dictionary: Dictionary
    offset: Float[Tensor, " m"]


def from_codes(config: CodingConfig, truth: str, tokens: Tokens) -> Learned:
    """The columns that explain the activations best given their codes; an expander one keeps the d largest values."""
    energy = tokens.codes.T @ tokens.codes
    ridge = RIDGE * energy.diagonal().mean() * torch.eye(config.n)
    values = torch.linalg.solve(energy + ridge, tokens.codes.T @ tokens.x)
    dictionary: Dictionary
    if truth == DENSE:
        dictionary = DenseDictionary(config.m, config.n, values)
    else:
        rows = values.abs().topk(config.d, dim=1).indices.sort(dim=1).values
        support = Support.from_rows(rows.to(torch.int32), config.m)
        dictionary = ExpanderDictionary(support, values.gather(1, rows))
    dictionary.normalise_columns()
    return Learned(dictionary, torch.zeros(config.m))


def with_coder(config: CodingConfig, truth: str, seed: int, tokens: Tokens, coder: Coder, width: int) -> Learned:
    """A dictionary that the library trains on the codes of any coder, which are at most `width` per token."""
    settings = TrainConfig(  # its own coder is a pursuit too, since that decides what a solver's dictionary is like
        n=config.n, d=None if truth == DENSE else config.d, k=width, coder="omp", stretch=1, seed=seed,
        tokens=config.solver_tokens, batch=config.batch,
    )  # fmt: skip
    sae = trained(settings, tokens, coder)
    return Learned(sae.dictionary, (sae.pre_bias / sae.scale).detach())


def trained(settings: TrainConfig, tokens: Tokens, coder: Coder | None = None) -> SparseAutoencoder:
    """The library's autoencoder trained on the tokens, with another coder in the loop if one is given."""
    batches = TensorBatches(tokens.x, batch=settings.batch, seed=settings.seed)
    sample = Sample.of(batches, settings.batch)
    trainee = Trainee(settings, new_autoencoder(settings, sample, coder=coder), sample)
    learn(trainee, batches, settings.tokens)
    return trainee.finished()


def first_dictionary(config: CodingConfig, truth: str, seed: int, tokens: Tokens) -> Dictionary:
    """The dictionary to start from if nothing is known: random columns, or tokens where they are largest."""
    generator = torch.Generator().manual_seed(seed)
    if truth == DENSE:
        return DenseDictionary(config.m, config.n, generator=generator)
    rows, values = rows_of_largest(tokens.x, tokens.x.std(dim=0), config.n, config.d)
    return ExpanderDictionary(Support.from_rows(rows, config.m), values)


def new_encoder(config: CodingConfig, coder: str, dictionary: Dictionary, seed: int) -> AnyEncoder:
    """An untrained encoder of the kind that the coder needs, which starts from the dictionary."""
    return MLPEncoder(dictionary, config.hidden, seed) if coder == MLP else LinearEncoder(dictionary)


def train_encoder(
    config: CodingConfig, setting: str, coder: str, encoder: AnyEncoder, dictionary: Dictionary, tokens: Tokens
) -> None:
    """Train an encoder, and the dictionary with it where neither is known; both change in place."""
    batches = TensorBatches(torch.cat([tokens.x, tokens.codes], dim=1), batch=config.batch)
    learner = EncoderLearner(config, setting, coder, encoder, dictionary, tokens)
    learn(learner, batches, learner.steps * config.batch)


class EncoderLearner:
    """An encoder that learns, and the dictionary with it where neither is known."""

    def __init__(
        self, config: CodingConfig, setting: str, coder: str, encoder: AnyEncoder, dictionary: Dictionary, known: Tokens
    ) -> None:
        self.config, self.setting, self.coder = config, setting, coder
        self.encoder, self.dictionary, self.known = encoder, dictionary, known
        self.tokens, self.steps = 0, config.tokens // config.batch
        learned = [*encoder.parameters(), *(dictionary.parameters() if setting == NEITHER else ())]
        self.optimizer = torch.optim.Adam(learned, lr=config.learning_rate, fused=True)
        self.record = FiringRecord(config.n, DEAD_AFTER, known.x.device)
        self.l1 = l1_weight(config, setting, coder, dictionary, known)

    def step(self, batch: Float[Tensor, "tokens m_and_n"]) -> Numbers:
        """Learn from activations and, behind them, their codes; the rate is flat, then falls to zero in a line."""
        step, x, true = self.tokens // self.config.batch, batch[:, : self.config.m], batch[:, self.config.m :]
        for options in self.optimizer.param_groups:
            options["lr"] = self.config.learning_rate * min(1.0, 2 * (1 - step / self.steps))
        self.optimizer.zero_grad()
        codes, residual = forward(self.config, self.setting, self.coder, self.encoder, self.dictionary, x)
        missed = codes - true if self.setting == KNOWN_CODES else residual
        loss = (missed.square().sum() / 2 + self.l1 * codes.sum()) / len(x)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.tokens += len(batch)
        if self.setting == NEITHER:
            self._keep_alive(step, codes.detach(), residual.detach())
        return {}

    def _keep_alive(self, step: int, codes: Float[Tensor, "tokens n"], residual: Float[Tensor, "tokens m"]) -> None:
        """Give columns unit norm again, and dead ones now and then a new beginning."""
        self.dictionary.normalise_columns()
        self.record.update(Codes.from_dense(codes), len(codes), current_group())
        if (step + 1) % RESTART_EVERY == 0 and step < RESTART_UNTIL * self.steps:
            dead = self.record.dead.nonzero()[:, 0]
            restart(self.dictionary, self.encoder, dead, residual, self.known, step)
            self.record.silent_for[dead] = 0


def l1_weight(config: CodingConfig, setting: str, coder: str, dictionary: Dictionary, tokens: Tokens) -> float:
    """Weight of the l1 norm of the codes: a share of the largest correlation of an ordinary token, or 0."""
    if coder != RELU or setting == KNOWN_CODES:
        return 0.0
    return config.penalty * float((tokens.x @ dictionary.to_dense().detach()).amax(dim=1).mean())


def forward(
    config: CodingConfig, setting: str, coder: str, encoder: AnyEncoder, dictionary: Dictionary, x: Tensor
) -> tuple[Float[Tensor, "tokens n"], Float[Tensor, "tokens m"]]:
    """The codes that a training step compares, and what they leave of x; of known codes all are compared, not k."""
    codes = encoder(x)
    if setting == KNOWN_CODES:
        return codes, x
    if coder != RELU:
        codes = keep_largest(codes, config.k)
    columns = dictionary.to_dense() if setting == NEITHER else dictionary.to_dense().detach()
    return codes, x - codes @ columns.T


@torch.no_grad()
def restart(
    dictionary: Dictionary, encoder: AnyEncoder, dead: Int[Tensor, " dead"], residual: Float[Tensor, "tokens m"],
    tokens: Tokens, step: int,
) -> None:  # fmt: skip
    """Let dead features begin anew where the worst explained tokens are largest, as the library does."""
    if len(dead) == 0:
        return
    worst = high_loss_tokens(residual, len(dead), torch.Generator().manual_seed(step))
    linear = encoder.shortcut if isinstance(encoder, MLPEncoder) else encoder
    d = dictionary.d if isinstance(dictionary, ExpanderDictionary) else dictionary.m
    rows, values = rows_of_largest(worst, tokens.x.std(dim=0), len(dead), d)
    for columns in (dictionary, linear.columns):
        if isinstance(columns, ExpanderDictionary):
            columns.place(dead, rows, values)
        else:
            columns.get_parameter("values")[dead] = values
    linear.bias[dead] = linear.bias.median()


def descended(
    dictionary: Dictionary,
    x: Float[Tensor, "tokens m"],
    start: Float[Tensor, "tokens n"],
    steps: int,
    penalty: float,
) -> Float[Tensor, "tokens n"]:
    """Non-negative codes after accelerated gradient steps on 1/2 |x - W codes|^2 + penalty * sum of the codes.

    The penalty is a share of the one that makes a token's codes zero. A step takes a product with the dictionary in
    either direction.
    """
    matrix = dictionary.to_dense().detach().to(x.dtype)
    weight = penalty * largest_penalty(x @ matrix, signed=False)[:, None]
    size = 1 / (SAFETY * largest_eigenvalue(dictionary, x.dtype).item())
    codes, ahead, momentum, patience = start, start, 1.0, Patience()
    for step in range(steps):
        patience.check(f"{steps:,} gradient steps for a batch of codes", step, steps)
        slopes = (x - ahead @ matrix.T) @ matrix
        new = (ahead + size * (slopes - weight)).clamp(min=0)
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, codes, momentum = new + (momentum - 1) / faster * (new - codes), new, faster
    return codes


@dataclass(frozen=True)
class GradientCodes(Coder):
    """The k largest codes after accelerated gradient steps from zero."""

    k: int
    steps: int
    penalty: float

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        def solve(chunk: Tensor) -> tuple[Tensor, Tensor]:
            zeros = chunk.new_zeros(len(chunk), dictionary.n)
            codes = Codes.from_dense(descended(dictionary, chunk, zeros, self.steps, self.penalty), self.k)
            return codes.values, codes.indices

        return code_in_chunks(dictionary, x, self.k, _ARRAYS * dictionary.n, solve)
