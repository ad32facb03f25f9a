"""What training makes small: the share of the batch's variance that is left over, a number without a scale.

Dead features have a loss of their own (AuxK): they share in reconstructing what the living ones leave over. Sums run
over all processes, so that several of them minimise exactly what one would. A new term is one more function here, and
one more summand in `losses_of`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae import kernels
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import TopK
from expander_sae.coders.candidates import fitted
from expander_sae.dictionaries import Codes, ComposedDictionary, Dictionary, ExpanderDictionary, Shard, shards_of
from expander_sae.distribution import Group
from expander_sae.training.config import MULTI, TrainConfig

MULTI_WEIGHT = 1 / 8
"""What the loss under MULTI times as many features counts."""
LARGER = 4
"""How many times larger residuals are than they are while groups of dead features are chosen, which are ranked for
tokens: a million features, most of them dead, then scored 97 % of the best for 81 to 95 %. A power of two, so that
nothing is rounded."""
REFIT_CANDIDATES = 3
"""Candidates of the refit in the loop, in halves of k."""


class BatchStatistics(NamedTuple):
    """What a dictionary needs to know of a whole batch, at the scale of the source."""

    tokens: int
    """In all processes together."""
    variation: Float[Tensor, ""]
    """Sum of the squared distances to the batch's mean: the error of predicting the mean."""


@torch.no_grad()
def batch_statistics(x: Float[Tensor, "tokens m"], group: Group) -> BatchStatistics:
    """The statistics of a batch of which x is this process's share."""
    if group.world == 1:
        return BatchStatistics(len(x), kernels.square_norm(x - x.mean(dim=0)))
    sums = torch.cat([x.sum(dim=0, dtype=torch.float64), x.new_tensor([len(x)], dtype=torch.float64)])
    group.add_up(sums)
    tokens = int(sums[-1])
    return BatchStatistics(tokens, group.add_up(kernels.square_norm(x - (sums[:-1] / tokens).to(x.dtype))))


class Losses(NamedTuple):
    """What a step makes small, and what it found on the way."""

    total: Float[Tensor, ""]
    """To be differentiated."""
    squares: Float[Tensor, ""]
    """Sum of the squared residual, in all processes together."""
    variation: Float[Tensor, ""]
    """What predicting the batch's mean would leave, at the scale of the autoencoder."""
    auxk: Float[Tensor, ""]
    """The loss of the dead features, of this process; zero without any."""
    codes: Codes
    residual: Float[Tensor, "tokens m"]
    fired: Codes
    """The codes that say which features live: those of one product where `codes` are refitted."""


def losses_of(
    config: TrainConfig,
    sae: SparseAutoencoder,
    x: Float[Tensor, "tokens m"],
    batch: BatchStatistics,
    dead: Int[Tensor, " dead"],
    group: Group,
) -> Losses:
    """The fraction of variance unexplained, plus what revives the dead features, plus the loss of wider codes.

    With the readable objective it is that of one-shot codes and that under refitted amplitudes, in their shares.
    """
    x = x.to(sae.pre_bias.dtype)
    variation = batch.variation.to(x.dtype) * sae.scale.to(x.dtype) ** 2
    if config.readable:
        codes, residual, fired, left_by_fired = _readable(config, sae, x)
        unexplained = fvu(residual, variation)
        share = config.refit_share
        minimised = share * unexplained + (1 - share) * fvu(left_by_fired, variation)
    else:
        halved = config.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if halved else nullcontext():
            codes, residual, square = sae.residual(x)
        fired, minimised = codes, square / variation
        unexplained = minimised
    squares = group.add_up((unexplained * variation).detach())
    left = residual.detach()
    auxk = x.new_zeros(())
    dead_ones = shards_of(sae.dictionary).total(len(dead))
    if config.auxk_weight and dead_ones > 0:
        around_mean = squares - group.add_up(left.sum(dim=0)).square().sum() / batch.tokens
        together = min(config.revived_together(sae.m), dead_ones)
        look = config.look if config.look is not None and len(dead) > config.look * sae.n else None
        auxk = auxk_loss(sae, left, dead, together, around_mean, look)
    total = minimised + config.auxk_weight * auxk
    if config.multi_topk:
        wider = sae.with_coder(TopK(MULTI * config.k, config.signed, config.look))
        total = total + MULTI_WEIGHT * wider.residual(x).squares / variation
    return Losses(total, squares, variation, auxk.detach(), codes.detach(), left, fired.detach())


def _readable(
    config: TrainConfig, sae: SparseAutoencoder, x: Float[Tensor, "tokens m"]
) -> tuple[Codes, Float[Tensor, "tokens m"], Codes, Float[Tensor, "tokens m"]]:
    """Refitted codes and what they leave, one-shot codes and what they leave; one product serves both.

    No gradient flows through refitted amplitudes, which are least squares among the candidates and so minimal already.
    """
    centred = torch.addcmul(-sae.pre_bias, x, sae.scale)
    reader: Dictionary = sae.dictionary
    seen = centred
    if isinstance(sae.dictionary, ComposedDictionary):  # what the atoms see is dear, and all three ask for it
        reader, seen = sae.dictionary.mixtures, sae.dictionary.atoms.correlate(centred)
    with torch.no_grad():
        width = min(REFIT_CANDIDATES * config.k // 2, sae.n)
        likely = reader.select(seen, width, sae.latent_bias, config.signed)
        target = None if reader is sae.dictionary else reader.correlate_at(seen, likely.indices)
    indices = likely.indices[:, : config.k]
    values = reader.correlate_at(seen, indices)
    if sae.latent_bias is not None:
        values = values + nn.functional.embedding(indices, sae.latent_bias[:, None])[..., 0]
    fired = Codes(values if config.signed else values.relu(), indices, sae.n)
    found = fitted(sae.dictionary, centred.detach(), likely.indices, config.k, config.signed, target)
    refitted = Codes(*found, sae.n)
    return refitted, _left(sae, centred, refitted), fired, _left(sae, centred, fired)


def _left(sae: SparseAutoencoder, centred: Float[Tensor, "tokens m"], codes: Codes) -> Float[Tensor, "tokens m"]:
    """What codes leave of the scaled and centred activations."""
    return sae.dictionary.synthesize(Codes(-codes.values, codes.indices, codes.n), centred)


def fvu(residual: Float[Tensor, "tokens m"], variation: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Fraction of variance unexplained; predicting the mean gives 1."""
    return kernels.square_norm(residual) / variation


def auxk_loss(
    sae: SparseAutoencoder,
    residual: Float[Tensor, "tokens m"],
    dead: Int[Tensor, " dead"],
    k: int,
    total: Float[Tensor, ""],
    look: float | None = None,
) -> Float[Tensor, ""]:
    """Share of the residual's variation `total` that k dead features per token leave over; only they get a gradient.

    Where the dead are more than the share `look` of all, tokens look at as many of the features in groups.
    """
    residual = residual.detach()
    if look is not None:
        allowed = torch.zeros(sae.n, dtype=torch.bool, device=dead.device).index_fill(0, dead, True)
        codes = sae.encoder.glance(LARGER * residual, k, look, allowed=allowed)
        without = Codes(-codes.values.relu() / LARGER, codes.indices, codes.n)
        return fvu(sae.dictionary.synthesize(without, residual), total)
    if isinstance(sae.dictionary, Shard) and isinstance(sae.encoder, Shard):
        codes = sae.encoder.among(dead, residual, k)
        without = Codes(-codes.values.relu(), codes.indices, codes.n)
        return fvu(sae.dictionary.synthesize(without, residual), total)
    scores, chosen = _largest(sae.encoder, dead, residual, min(k, len(dead)))
    return fvu(_without(residual, sae.dictionary, dead, scores.relu(), chosen), total)


def _largest(
    encoder: Dictionary, features: Int[Tensor, " f"], x: Float[Tensor, "tokens m"], k: int
) -> tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
    """The largest correlations among some features, and where in their list."""
    if isinstance(encoder, ComposedDictionary):
        x, encoder = encoder.atoms.correlate(x), encoder.mixtures
    if isinstance(encoder, ExpanderDictionary):
        return kernels.select(x, encoder.some(features), encoder.rows[features], k)
    values = nn.functional.embedding(features, encoder.get_parameter("values"))
    best = (x @ values.T).topk(k)
    return best.values, best.indices


def _without(
    residual: Float[Tensor, "tokens m"],
    dictionary: Dictionary,
    features: Int[Tensor, " f"],
    codes: Float[Tensor, "tokens k"],
    chosen: Int[Tensor, "tokens k"],
) -> Float[Tensor, "tokens m"]:
    """The residual less the weighted sum of the chosen columns among some features."""
    if isinstance(dictionary, ComposedDictionary):
        atoms, nothing = dictionary.atoms, residual.new_zeros(len(residual), dictionary.atoms.n)
        return residual + _without(nothing, dictionary.mixtures, features, codes, chosen) @ atoms.values
    if isinstance(dictionary, ExpanderDictionary):
        return kernels.combine(-codes, chosen, dictionary.some(features), dictionary.rows[features], residual)
    values = nn.functional.embedding(features, dictionary.get_parameter("values"))
    return residual - nn.functional.embedding_bag(chosen, values, per_sample_weights=codes, mode="sum")
