"""Encoders that are trained beside a dictionary, a linear one and one with a hidden layer: training, files, codes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder
from expander_sae.coders.base import CHUNK_ELEMENTS
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.dictionaries.base import flatten
from expander_sae.distribution import current_group
from expander_sae.files import read_checked_tensors, write_checked_tensors
from expander_sae.means import check_memory
from expander_sae.studies.study import damaged
from expander_sae.training import Numbers, TrainConfig, batch_statistics, learn, open_source

RATE = 0.003
"""Of Adam, flat and then falling: of factors of 3 it was best, or within 0.004 of the best FVU, at m=96, n=384 and at
m=576, n=4608, on columns learned with TopK and with a pursuit."""
_ARRAYS = 4


class LinearEncoder(nn.Module):
    """ReLU of a product with columns of the dictionary's shape, plus a bias; starts from the dictionary."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self.columns = copy.deepcopy(dictionary)
        self.bias = nn.Parameter(torch.zeros(dictionary.n))

    @property
    def learned_values(self) -> int:
        """How many learned numbers there are."""
        return self.columns.learned_values + self.bias.numel()

    def before(self, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens n"]:
        """What the ReLU sees."""
        return x @ self.columns.to_dense() + self.bias

    def forward(self, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens n"]:
        return torch.relu(self.before(x))


class MLPEncoder(nn.Module):
    """A linear encoder and, added before its ReLU, a hidden layer, which at first adds nothing."""

    def __init__(self, dictionary: Dictionary, hidden: int, seed: int) -> None:
        super().__init__()
        values = 16.0 * hidden * (dictionary.m + dictionary.n)  # with a gradient and two moments each
        check_memory(f"An MLP with {hidden:,} hidden units", values, instead="give fewer")
        self.shortcut = LinearEncoder(dictionary)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.hidden, self.out = nn.Linear(dictionary.m, hidden), nn.Linear(hidden, dictionary.n, bias=False)
        nn.init.zeros_(self.out.weight)

    @property
    def learned_values(self) -> int:
        """How many learned numbers there are."""
        layers = [*self.hidden.parameters(), *self.out.parameters()]
        return self.shortcut.learned_values + sum(each.numel() for each in layers)

    def forward(self, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens n"]:
        return torch.relu(self.shortcut.before(x) + self.out(torch.relu(self.hidden(x))))


def keep_largest(codes: Float[Tensor, "tokens n"], k: int) -> Float[Tensor, "tokens n"]:
    """The k largest codes of every token, zeros elsewhere."""
    best = codes.topk(k, dim=1)
    return torch.zeros_like(codes).scatter(1, best.indices, best.values)


@dataclass(frozen=True)
class MLPCodes(Coder):
    """The k largest codes that an MLP encoder gives; gradients flow to it."""

    encoder: MLPEncoder
    k: int

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        size = max(1, CHUNK_ELEMENTS // (_ARRAYS * dictionary.n))
        parts = torch.split(flatten(x, dictionary.m), size)
        pieces = [self.encoder(part).topk(self.k, dim=1) for part in parts]
        codes = Codes.concatenate([Codes(piece.values, piece.indices, dictionary.n) for piece in pieces])
        return codes.reshape(*x.shape[:-1])


def train_encoder(sae: SparseAutoencoder, source: Store | Tensor, config: TrainConfig, hidden: int) -> MLPEncoder:
    """An encoder whose k largest codes reconstruct over the autoencoder's columns; those, biases and scale stay.

    Tokens, batch, order and seed are the config's.
    """
    learner = MLPLearner(sae, config, hidden)
    with open_source(source, config) as batches:
        learn(learner, batches, learner.steps * config.batch)
    return learner.encoder


class MLPLearner:
    """An MLP encoder that learns to reconstruct over the columns of an autoencoder."""

    def __init__(self, sae: SparseAutoencoder, config: TrainConfig, hidden: int) -> None:
        self.batch, self.steps, self.tokens = config.batch, config.tokens // config.batch, 0
        self.encoder = new_encoder(sae, hidden, config.seed)
        self.coded = sae.requires_grad_(False).with_coder(MLPCodes(self.encoder, config.k))
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), lr=RATE, fused=True)

    def step(self, x: Float[Tensor, "tokens m"]) -> Numbers:
        """Learn from a batch."""
        x, step = x.to(self.coded.pre_bias), self.tokens // self.batch
        if step == 0:
            fit_size(self.coded, self.encoder, x)
        for options in self.optimizer.param_groups:
            options["lr"] = RATE * min(1.0, 2 * (1 - step / self.steps))
        self.optimizer.zero_grad()
        statistics = batch_statistics(x * self.coded.scale, current_group())
        loss = self.coded.residual(x).squares / statistics.variation
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.tokens += statistics.tokens
        return {}


def new_encoder(sae: SparseAutoencoder, hidden: int, seed: int) -> MLPEncoder:
    """An encoder that nobody has trained: its codes are those of TopK."""
    encoder = MLPEncoder(sae.encoder, hidden, seed).requires_grad_(True)
    if sae.latent_bias is not None:
        encoder.shortcut.bias.data.copy_(sae.latent_bias)
    return encoder


@torch.no_grad()
def fit_size(coded: SparseAutoencoder, encoder: MLPEncoder, x: Float[Tensor, "tokens m"]) -> None:
    """Give codes the one size that explains best: one product with columns learned under a pursuit overshoots."""
    centred = x * coded.scale - coded.pre_bias
    guess = centred - coded.residual(x).left
    size = ((guess * centred).sum() / guess.square().sum().clamp_min(1e-30)).clamp_min(0)
    for parameter in encoder.shortcut.parameters():
        parameter.mul_(size)


def write_encoder(path: Path, encoder: MLPEncoder) -> None:
    """Put an encoder into a file, in one step."""
    write_checked_tensors(path, dict(encoder.named_parameters()))


@torch.no_grad()
def read_encoder(path: Path, sae: SparseAutoencoder, hidden: int) -> MLPEncoder:
    """The encoder in such a file, which was trained for this autoencoder."""
    encoder = new_encoder(sae, hidden, 0)
    try:
        tensors, _ = read_checked_tensors(path)
        for name, parameter in encoder.named_parameters():
            if tensors[name].shape != parameter.shape or not bool(tensors[name].isfinite().all()):
                raise damaged(path)
            parameter.copy_(tensors[name])
    except (ValueError, KeyError) as error:
        raise damaged(path) from error
    return encoder
