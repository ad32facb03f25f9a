"""The autoencoder that training starts from: new, with support and signs by seed and biases and scale by data, or that
of another run with its rows, values and biases."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder, OneShotCoder, TopK
from expander_sae.dictionaries import (
    ComposedDictionary,
    DenseDictionary,
    Dictionary,
    ExpanderDictionary,
    Shard,
    columns_in,
)
from expander_sae.dictionaries.expander import random_signs
from expander_sae.distribution import Group, current_group
from expander_sae.errors import ExpanderError
from expander_sae.supports import NO_ROW, Support, named
from expander_sae.training.alphabets import rows_of_largest
from expander_sae.training.config import TrainConfig, check_width
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
    """All of them, centred and scaled."""

    @classmethod
    def of(
        cls, source: BatchSource, batch: int, group: Group | None = None, device: torch.device | None = None
    ) -> Sample:
        """Reads the first tokens, over all processes, and puts the source back to where it was."""
        group = current_group() if group is None else group
        cursor = source.state_dict()
        shares = [next(source).to(device, torch.float32) for _ in range(max(1, SAMPLE // batch))]
        source.load_state_dict(cursor)
        tokens = int(group.add_up(torch.tensor(sum(len(share) for share in shares), device=device)))
        if tokens != len(shares) * batch:
            raise ExpanderError(f"The source gives {tokens / len(shares):g} tokens a batch, the config says {batch}.")
        x = group.gathered(torch.cat(shares))
        # In the order of their norms, whichever process read them.
        x = x[torch.linalg.vector_norm(x, dim=1).argsort(stable=True)]
        mean, mean_norm = x.mean(dim=0, dtype=torch.float64), float(torch.linalg.vector_norm(x, dim=1).double().mean())
        if not (math.isfinite(mean_norm) and mean_norm > 0):
            raise ExpanderError("The first activations are all zero or not finite; training needs others.")
        scale = math.sqrt(x.shape[1]) / mean_norm
        centred = (x - mean.float()) * scale
        return cls(mean, scale, centred.square().mean(dim=0).sqrt(), centred)

    @classmethod
    def unknown(cls, m: int, device: torch.device) -> Sample:
        """For an autoencoder of this width whose every value will come from a checkpoint."""
        zeros = torch.zeros(m, device=device)
        return cls(zeros.double(), 1.0, zeros, zeros[None])


def new_autoencoder(
    config: TrainConfig,
    sample: Sample,
    group: Group | None = None,
    coder: Coder | None = None,
    shards: Group | None = None,
) -> SparseAutoencoder:
    """A new autoencoder for these activations, the same one in all processes, or a part of it in each of the shards.

    Another coder than those that a config can name takes the place of the config's, which should be of the same kind.
    """
    group, shards = current_group() if group is None else group, shards or Group()
    if config.start is None:
        sae, alike = _fresh(config, sample, shards), config.learns_rows and config.one_shot and not config.composed
    else:
        sae, alike = _started(config, config.start, len(sample.mean), sample.mean.device)
    with torch.no_grad():
        if alike and not config.unit_columns:
            x = sample.tokens[: config.batch] / sample.scale + sample.mean.float()
            one_shot = sae.with_coder(TopK(config.k, config.signed)) if config.readable or config.look else sae
            _shrink_columns(one_shot, x * sae.scale - sae.pre_bias)
    group.share(sae.parameters())
    for each in (group, shards):
        each.share([sae.scale, sae.pre_bias])
    return sae if coder is None else sae.with_coder(coder)


def _fresh(config: TrainConfig, sample: Sample, shards: Group) -> SparseAutoencoder:
    """An autoencoder that has learned nothing yet, whatever that of which it takes columns or atoms has."""
    before = None
    if config.atoms_from is not None or config.columns_from is not None:
        before = SparseAutoencoder.load(config.atoms_from or config.columns_from or "", device=sample.mean.device)
        (_check_atoms if config.composed else _check_columns)(config, before, len(sample.mean))
    sae = SparseAutoencoder(
        _composed(config, sample, before) if config.composed else _dictionary(config, sample, before, shards),
        config.make_coder(),
        tied=config.tied,
        latent_bias=config.has_latent_bias,
    )
    with torch.no_grad():
        # Atoms keep their scale; columns are as good at any, and rates are for that of the sample.
        sae.scale.fill_(sample.scale if before is None or not config.composed else before.scale)
        ratio = 1.0 if before is None else sae.scale / before.scale
        sae.pre_bias.copy_(sample.mean * sae.scale if before is None else before.pre_bias * ratio)
        if before is not None and sae.latent_bias is not None and before.latent_bias is not None and before.tied:
            sae.latent_bias[: before.n] = before.latent_bias * ratio
    return sae


def _composed(config: TrainConfig, sample: Sample, before: SparseAutoencoder | None) -> ComposedDictionary:
    """As many columns as there are atoms, each of one; all others are still zero and begin as dead features do."""
    m, device, generator = len(sample.mean), sample.mean.device, torch.Generator().manual_seed(config.seed)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    values = None if before is None else before.dictionary.to_dense().T
    p = config.atoms if values is None else len(values)
    assert p is not None
    atoms = DenseDictionary(m, p, values, dtype=dtype, device=device, generator=generator)
    features = torch.arange(config.n)
    beyond = (0, config.lengths.longest(p) - 1)
    support = Support.from_rows(nn.functional.pad((features % p)[:, None], beyond, value=NO_ROW), p)
    single = nn.functional.pad((features < p).to(dtype)[:, None], beyond)
    return ComposedDictionary(atoms, ExpanderDictionary(support, single, device=device))


def _check_atoms(config: TrainConfig, before: SparseAutoencoder, width: int) -> None:
    """Refuse atoms of another width or number."""
    if before.m != width or before.n != (config.atoms or before.n) or before.n > config.n:
        raise ExpanderError(
            f"{config.atoms_from} has {before.n} columns of width {before.m}, which cannot be the "
            f"{'' if config.atoms is None else f'{config.atoms} '}atoms of {config.n} features of width {width}."
        )


def _check_columns(config: TrainConfig, before: SparseAutoencoder, width: int) -> None:
    """Refuse columns of another width or number."""
    if (before.m, before.n) != (width, config.n):
        raise ExpanderError(
            f"{config.columns_from} has {before.n} columns of width {before.m}, which cannot be those of {config.n} "
            f"features of width {width}."
        )


def _shrink_columns(sae: SparseAutoencoder, centred: Float[Tensor, "tokens m"]) -> None:
    """Columns alike what they encode explain it many times over; give them the one size that explains it best."""
    assert isinstance(sae.coder, OneShotCoder)
    guess = sae.dictionary.synthesize(sae.coder(sae.encoder, centred.to(sae.pre_bias.dtype), None))
    square = (guess * centred).sum() / guess.square().sum()
    for dictionary in {sae.dictionary, sae.encoder}:
        columns_in(dictionary).get_parameter("values").mul_(square.clamp_min(0).sqrt())


def _dictionary(config: TrainConfig, sample: Sample, before: SparseAutoencoder | None, shards: Group) -> Dictionary:
    """Columns of unit norm: learned rows start from tokens of the sample, all others from random signs.

    Where there are columns to begin as, learned rows start from those, with the norms that their codes go with. In
    shards every column is what it would be if one process held all of them.
    """
    m, device, generator = len(sample.mean), sample.mean.device, torch.Generator().manual_seed(config.seed)
    check_width(config, m)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    if config.d is None:
        return DenseDictionary(m, config.n, dtype=dtype, device=device, generator=generator)
    count = config.n // shards.world
    part = range(shards.rank * count, (shards.rank + 1) * count)
    if config.learns_rows:
        order = torch.randperm(len(sample.tokens), generator=generator).to(device)
        first = config.lengths.longest(m) if config.readable else config.d  # to be pruned, or with room to grow
        if before is None:
            rows, values = rows_of_largest(sample.tokens[order], sample.spread, config.n, first, part)
        else:
            rows, values = _largest_values(before, first, unit=config.unit_columns)
        room = (0, config.lengths.longest(m) - first)
        support = Support.from_rows(nn.functional.pad(rows, room, value=NO_ROW), m)
        values = nn.functional.pad(values, room)
    else:
        support = recipe_of(config, m)
        values = random_signs(config.n, config.d, generator, part).div_(support.degrees[:count, None] ** 0.5)
        if shards.world > 1:
            support = Support.from_rows(support.columns(torch.arange(part.start, part.stop)), m)
    values = values.to(device, dtype)
    return Shard(support, values, shards) if shards.world > 1 else ExpanderDictionary(support, values)


def recipe_of(config: TrainConfig, m: int) -> Support:
    """The support of a config whose rows are not learned."""
    construction, parameters = named(config.construction)
    return Support.make(construction, m=m, n=config.n, d=config.degree, seed=config.seed, **parameters)


def _largest_values(
    before: SparseAutoencoder, count: int, unit: bool
) -> tuple[Int[Tensor, "n count"], Float[Tensor, "n count"]]:
    """Rows, ascending, and values of the largest entries of every column; of unit norm where norms mean nothing."""
    columns = before.dictionary.to_dense().T.detach()
    rows = columns.abs().topk(count, dim=1).indices.sort(dim=1).values
    values = columns.gather(1, rows)
    if unit or not before.tied or not isinstance(before.coder, OneShotCoder):
        values = nn.functional.normalize(values, dim=1)
    return rows.to(torch.int32), values


def _started(config: TrainConfig, folder: str, width: int, device: torch.device) -> tuple[SparseAutoencoder, bool]:
    """What the folder holds, with the coder and the encoder that the config asks for.

    An encoder of its own starts from that of the other run, a latent bias too; where there is none, from the columns
    and from zero. Also gives back whether a one-shot coder will now read columns that a pursuit was trained with.
    """
    before = SparseAutoencoder.load(folder, device=device)
    _check_sizes(config, before.dictionary, width)
    sae = SparseAutoencoder(
        before.dictionary,
        config.make_coder(),
        tied=config.tied,
        latent_bias=config.has_latent_bias,
    ).to(torch.float64 if config.precision == "float64" else torch.float32)
    with torch.no_grad():
        sae.scale.copy_(before.scale)
        sae.pre_bias.copy_(before.pre_bias)
        if sae.untied_encoder is not None:
            sae.untied_encoder.load_state_dict(before.encoder.state_dict())
        if sae.latent_bias is not None and before.latent_bias is not None:
            sae.latent_bias.copy_(before.latent_bias)
    return sae, config.one_shot and not isinstance(before.coder, OneShotCoder)


def _check_sizes(config: TrainConfig, dictionary: Dictionary, width: int) -> None:
    """Refuse a start of other sizes; of mixtures, which have d values at most on average, one of longer columns."""
    dense, wanted = isinstance(dictionary, DenseDictionary), config.entries_at(width)
    composed = isinstance(dictionary, ComposedDictionary)
    values = columns_in(dictionary).learned_values
    fits = values == wanted or (composed and values <= wanted)
    if (dictionary.m, dictionary.n) != (width, config.n) or not fits or dense != (config.d is None):
        per_column = "dense" if dense else f"d={values / dictionary.n:g}"
        raise ExpanderError(
            f"{config.start} has n={dictionary.n} columns of width {dictionary.m}, {per_column}; training from it "
            f"needs the same, not n={config.n} of width {width}, {'dense' if config.d is None else f'd={config.d}'}."
        )
