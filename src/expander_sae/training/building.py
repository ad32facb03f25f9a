"""The autoencoder that training starts from: its support and signs by seed, its biases and scale by data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OneShotCoder
from expander_sae.dictionaries import DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import Support
from expander_sae.training.config import TrainConfig, check_width
from expander_sae.distribution import Group
from expander_sae.training.learned_rows import rows_of_largest
from expander_sae.training.sources import BatchSource

SAMPLE = 16_384
"""Tokens that the mean and the scale are estimated from, at least one batch."""


@dataclass(frozen=True)
class Sample:
    """What the first tokens say about all of them."""

    mean: Float[Tensor, " m"]
    scale: float
    """What gives them a mean norm of sqrt(m)."""
    spread: Float[Tensor, " m"]
    """Standard deviation of every coordinate, scaled."""
    tokens: Float[Tensor, "tokens m"]
    """This process's share of them, centred and scaled."""

    @classmethod
    def of(cls, source: BatchSource, batch: int, group: Group, device: torch.device) -> Sample:
        """Reads the first tokens, over all processes, and puts the source back to where it was."""
        cursor = source.state_dict()
        count = max(1, SAMPLE // batch)
        x = torch.cat([next(source).to(device, torch.float64) for _ in range(count)])
        source.load_state_dict(cursor)
        norms = torch.linalg.vector_norm(x, dim=1).sum()
        sums = group.add_up(torch.cat([x.sum(dim=0), norms[None], x.new_tensor([len(x)])]))
        tokens, mean_norm = int(sums[-1]), float(sums[-2] / sums[-1])
        if tokens != count * batch:
            raise ExpanderError(f"The source gives {tokens / count:g} tokens a batch, the config says {batch}.")
        if not (math.isfinite(mean_norm) and mean_norm > 0):
            raise ExpanderError("The first activations are all zero or not finite; training needs others.")
        mean, scale = sums[:-2] / tokens, math.sqrt(x.shape[1]) / mean_norm
        centred = (x - mean) * scale
        spread = (group.add_up(centred.square().sum(dim=0)) / tokens).sqrt()
        return cls(mean, scale, spread.float(), centred.float())

    @classmethod
    def unknown(cls, m: int, device: torch.device) -> Sample:
        """For an autoencoder of this width whose every value will come from a checkpoint."""
        zeros = torch.zeros(m, device=device)
        return cls(zeros.double(), 1.0, zeros, zeros[None])


def build(config: TrainConfig, sample: Sample, group: Group) -> SparseAutoencoder:
    """A new autoencoder for these activations, the same one in all processes."""
    sae = SparseAutoencoder(
        _dictionary(config, sample, group),
        config.make_coder(),
        tied=config.tied,
        latent_bias=config.one_shot if config.latent_bias is None else config.latent_bias,
    )
    with torch.no_grad():
        sae.scale.fill_(sample.scale)
        sae.pre_bias.copy_(sample.mean * sae.scale)
        if config.learns_rows and config.one_shot and not config.unit_columns:
            _shrink_columns(sae, sample.tokens[: config.batch])
    group.share(sae.parameters())
    group.share([sae.scale])
    return sae


def _shrink_columns(sae: SparseAutoencoder, centred: Float[Tensor, "tokens m"]) -> None:
    """Columns alike what they encode explain it many times over; give them the one size that explains it best."""
    assert isinstance(sae.coder, OneShotCoder)
    guess = sae.dictionary.synthesize(sae.coder(sae.encoder, centred.to(sae.pre_bias.dtype), None))
    square = (guess * centred).sum() / guess.square().sum()
    for parameter in {sae.dictionary, sae.encoder}:
        parameter.get_parameter("values").mul_(square.clamp_min(0).sqrt())


def _dictionary(config: TrainConfig, sample: Sample, group: Group) -> Dictionary:
    """Columns of unit norm: learned rows start from tokens of the sample, all others from random signs."""
    m, device, generator = len(sample.mean), sample.mean.device, torch.Generator().manual_seed(config.seed)
    check_width(config, m)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    if config.d is None:
        return DenseDictionary(m, config.n, dtype=dtype, device=device, generator=generator)
    if config.learns_rows:
        order = torch.randperm(len(sample.tokens), generator=generator).to(device)
        rows, values = rows_of_largest(sample.tokens[order], sample.spread, config.n, config.d)
        group.share([rows, values])
        return ExpanderDictionary(Support.from_rows(rows, m), values, dtype=dtype, device=device)
    support = Support.make(config.construction, m=m, n=config.n, d=config.d, seed=config.seed)
    return ExpanderDictionary(support, dtype=dtype, device=device, generator=generator)
