"""A dictionary of many more features out of a dense one: its columns become atoms, and clusters of tokens mixtures.

A mixture is told by its encoder: the centre of a cluster, written in a few atoms, with a bias that lets it fire on
most of its cluster's tokens beside the atoms, and on some tokens however small the cluster is. Its own column says
something else: what the atoms leave over when it fires. One vector could not do both: a mixture that is its own encoder
says again what its atoms say.
"""

from __future__ import annotations

import copy
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Candidates, TopK
from expander_sae.dictionaries import Codes, ComposedDictionary, DenseDictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory
from expander_sae.supports import NO_ROW, Support

CHUNK = 8192
"""Tokens or centres at a time."""
MIXTURES_AT_ONCE = 1024
"""Mixtures at a time that are compared with all tokens of their coarse cluster."""
ROUNDS = 8
"""Rounds of k-means, coarse and fine."""
SAMPLED = 512
"""Tokens for each coarse cluster that its centre is found from."""
TRIED = 4
"""Atoms that a centre is written with are chosen among this many times as many."""
SHARED = 0.5
"""Of what the atoms leave over, a mixture begins with this much: others fire beside it and say a part of it."""
RIDGE = 1e-3
"""Of the mean square of a mixture's atoms, where some of them are nearly alike."""
APART = 0.5
"""Of what a cluster has in common with the others of its coarse cluster, so much is left out of its encoder: of a
frequent word there are many clusters, whose centres alone would be one and the same few atoms."""
OFTEN = 8e-5
"""Of all tokens a mixture fires on at least so many, where it can: 48 of 600,000."""
COUNTED = 150_000
"""Tokens that firing is counted on."""
HALVINGS = 5
"""Times that the interval in which a threshold lies is halved."""


@torch.no_grad()
def grow(
    sae: SparseAutoencoder, x: Float[Tensor, "tokens m"], n: int, d: int, fires: float = 0.6, seed: int = 0
) -> SparseAutoencoder:
    """An autoencoder of n features: those of `sae` as atoms, and mixtures of at most d of them that are clusters of x.

    A mixture fires on this share of its cluster's tokens, as long as atoms are what it competes with, or on the tokens
    nearest to its cluster if these are too few. What it adds to a reconstruction is a first guess; training from it
    with the encoder held (`TrainConfig.hold_encoder`) finds it.
    """
    dictionary, coder = check_growable(sae, n, d)
    _check_tokens(sae, x, n, d)
    generator = torch.Generator().manual_seed(seed)
    centred = torch.addcmul(-sae.pre_bias, x.to(sae.pre_bias), sae.scale)
    atoms = DenseDictionary(sae.m, sae.n, dictionary.values.to(centred))
    bias = torch.zeros(sae.n, device=x.device) if sae.latent_bias is None else sae.latent_bias.detach().clone()
    cluster, coarse = clusters_of(nn.functional.normalize(centred, dim=1), n - sae.n, generator)
    grouped = _Groups(cluster, n - sae.n)
    rows, encoding = _in_atoms(atoms, _apart(grouped.means(centred), grouped.sizes, coarse), d)
    columns = _written_out(atoms, rows, encoding)
    own, last, left = _beside_atoms(atoms, bias, centred, grouped, columns, coder.k)
    first = torch.cat([bias, grouped.quantiles(last - own, fires).clamp_max(0)])
    lowered = _lowered(_composed(atoms, rows, encoding), first, coder.k, centred, (coarse[cluster], coarse), generator)
    code = grouped.means(nn.functional.relu(own + lowered[sae.n + cluster])[:, None])
    adds = _least_squares(atoms, rows, left) * torch.where(code > 0, SHARED / code, 0.0)
    return _assembled(sae, _composed(atoms, rows, adds), encoding, lowered)


def check_growable(sae: SparseAutoencoder, n: int, d: int) -> tuple[DenseDictionary, TopK]:
    """Refuse what cannot be grown so; gives back what is grown, and its coder."""
    if not isinstance(sae.dictionary, DenseDictionary) or not sae.tied or not isinstance(sae.coder, TopK):
        raise ExpanderError("Only a dense dictionary that is its own encoder, with the coder topk, can be grown.")
    if sae.coder.signed:
        raise ExpanderError("Only a dictionary with non-negative codes can be grown; train one without signed.")
    if n <= sae.n:
        raise ExpanderError(f"The dictionary has {sae.n} features; grow it to more of them, not to {n}.")
    if not 1 < d <= sae.n:
        raise ExpanderError(f"A mixture has from 2 to {sae.n} atoms, as many as there are, not {d}.")
    return sae.dictionary, sae.coder


def _check_tokens(sae: SparseAutoencoder, x: Float[Tensor, "tokens m"], n: int, d: int) -> None:
    """Refuse too few tokens, or more than there is room for."""
    if len(x) < 2 * (n - sae.n):
        raise ExpanderError(
            f"{n - sae.n} clusters need at least {2 * (n - sae.n)} tokens that are not massive, not {len(x)}; give a "
            "smaller n or more tokens."
        )
    check_memory("Growing", 4.0 * (3 * x.numel() + 2 * n * (sae.m + 3 * d)), str(x.device), "give fewer tokens")


class _Groups:
    """Tokens in clusters, and what is told of each cluster."""

    def __init__(self, cluster: Int[Tensor, " tokens"], count: int) -> None:
        self.cluster, self.count = cluster, count
        self.sizes = torch.bincount(cluster, minlength=count)

    def means(self, values: Float[Tensor, "tokens w"]) -> Float[Tensor, "count w"]:
        """The mean of every cluster, zero where there is no token."""
        sums = values.new_zeros(self.count, values.shape[1]).index_add_(0, self.cluster, values)
        return sums / self.sizes.clamp_min(1)[:, None]

    def quantiles(self, values: Float[Tensor, " tokens"], share: float) -> Float[Tensor, " count"]:
        """What this share of a cluster's tokens have at most; minus infinity would be as good where there is none."""
        ascending = values.argsort(stable=True)
        order = ascending[self.cluster[ascending].argsort(stable=True)]
        first = self.sizes.cumsum(0) - self.sizes
        place = first + ((self.sizes - 1).clamp_min(0) * share).long()
        return values[order[place.clamp_max(len(values) - 1)]]


def clusters_of(
    directions: Float[Tensor, "tokens m"], count: int, generator: torch.Generator
) -> tuple[Int[Tensor, " tokens"], Int[Tensor, " count"]]:
    """Which of so many clusters each token is in, by k-means on the sphere in two levels, and the coarse one of each.

    About sqrt(count) coarse clusters are found from a sample, and divided in proportion to their tokens; so a token is
    compared with some sqrt(count) centres twice, and not with all.
    """
    coarse = max(1, round(math.sqrt(count)))
    sample = directions[_drawn(len(directions), min(len(directions), SAMPLED * coarse), generator)]
    among = _nearest(directions, _k_means(sample, coarse, generator))
    sizes = torch.bincount(among, minlength=coarse)
    parts = _in_proportion(sizes, count)
    cluster, base = torch.empty_like(among), 0
    for part, fine in enumerate(parts.tolist()):
        where = (among == part).nonzero()[:, 0]
        if len(where):
            inside = directions[where]
            cluster[where] = base + _nearest(inside, _k_means(inside, fine, generator))
        base += fine
    return cluster, torch.arange(coarse, device=among.device).repeat_interleave(parts.to(among.device))


def _in_proportion(sizes: Int[Tensor, " parts"], count: int) -> Int[Tensor, " parts"]:
    """`count` in whole numbers in proportion to these sizes, at least one where there is anything."""
    exact = sizes.double() * count / sizes.sum()
    parts = torch.where(sizes > 0, exact.floor().clamp_min(1), 0).long()
    for _ in range(abs(int(parts.sum()) - count)):
        short = exact - parts
        if int(parts.sum()) < count:
            parts[short.argmax()] += 1
        else:
            parts[torch.where(parts > 1, short, torch.inf).argmin()] -= 1
    return parts


def _k_means(x: Float[Tensor, "tokens m"], count: int, generator: torch.Generator) -> Float[Tensor, "count m"]:
    """Centres of unit norm; one that is nearest to no token begins anew as one of them."""
    centres = x[_drawn(len(x), count, generator)]
    for _ in range(ROUNDS):
        grouped = _Groups(_nearest(x, centres), count)
        centres = nn.functional.normalize(grouped.means(x), dim=1)
        empty = (grouped.sizes == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = x[_drawn(len(x), len(empty), generator)]
    return centres


def _drawn(tokens: int, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """So many different tokens, by lot."""
    return torch.randperm(tokens, generator=generator)[:count]


def _nearest(x: Float[Tensor, "tokens m"], centres: Float[Tensor, "count m"]) -> Int[Tensor, " tokens"]:
    """The centre that each token correlates with most."""
    return torch.cat([(part @ centres.T).argmax(dim=1) for part in torch.split(x, CHUNK)])


def _apart(
    means: Float[Tensor, "count m"], sizes: Int[Tensor, " count"], coarse: Int[Tensor, " count"]
) -> Float[Tensor, "count m"]:
    """Directions of clusters, with a part of what all tokens of the same coarse cluster share left out."""
    shared = means.new_zeros(int(coarse.max()) + 1, means.shape[1])
    shared.index_add_(0, coarse, means * sizes[:, None])
    tokens = torch.zeros_like(shared[:, 0]).index_add_(0, coarse, sizes.to(means))
    directions = means - APART * (shared / tokens.clamp_min(1)[:, None])[coarse]
    return nn.functional.normalize(directions * (sizes > 0)[:, None], dim=1)


def _in_atoms(
    atoms: DenseDictionary, directions: Float[Tensor, "n m"], d: int
) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Columns of unit norm that write these directions with at most d atoms: rows, then NO_ROW, and values."""
    coder = Candidates(d, min(TRIED * d, atoms.n), signed=True)
    codes = [coder(atoms, part) for part in torch.split(directions, CHUNK)]
    rows, values = torch.cat([each.indices for each in codes]), torch.cat([each.values for each in codes])
    used = (values != 0) | (torch.arange(d, device=values.device) == 0)
    rows, order = torch.where(used, rows, atoms.n).sort(dim=1, stable=True)
    values = (values * used).gather(1, order)
    rows = torch.where(rows == atoms.n, NO_ROW, rows)
    norms = torch.linalg.vector_norm(_written_out(atoms, rows, values), dim=1, keepdim=True)
    return rows, values * torch.where(norms > 0, 1 / norms, 0.0)


def _written_out(
    atoms: DenseDictionary, rows: Int[Tensor, "n d"], values: Float[Tensor, "n d"]
) -> Float[Tensor, "n m"]:
    """The columns that mixtures make of the atoms."""
    return nn.functional.embedding_bag(rows.clamp_min(0), atoms.values, per_sample_weights=values, mode="sum")


def _beside_atoms(
    atoms: DenseDictionary,
    bias: Float[Tensor, " p"],
    x: Float[Tensor, "tokens m"],
    grouped: _Groups,
    columns: Float[Tensor, "n m"],
    k: int,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"], Float[Tensor, "n m"]]:
    """How each token correlates with its own cluster's column, the k-th largest code of the atoms, which a mixture has
    to be above, and the mean of what the k - 1 larger ones leave in every cluster."""
    own, last, left = x.new_empty(len(x)), x.new_empty(len(x)), torch.zeros_like(columns)
    for places in torch.split(torch.arange(len(x), device=x.device), CHUNK):
        part, cluster = x[places], grouped.cluster[places]
        codes = atoms.select(part, min(k, atoms.n), bias)
        own[places], last[places] = (part * columns[cluster]).sum(dim=1), codes.values[:, -1]
        others = Codes(-codes.values[:, :-1].relu(), codes.indices[:, :-1], codes.n)
        left.index_add_(0, cluster, atoms.synthesize(others, part))
    return own, last, left / grouped.sizes.clamp_min(1)[:, None]


def _lowered(
    encoder: ComposedDictionary,
    first: Float[Tensor, " n"],
    k: int,
    x: Float[Tensor, "tokens m"],
    coarse: tuple[Int[Tensor, " tokens"], Int[Tensor, " count"]],
    generator: torch.Generator,
) -> Float[Tensor, " n"]:
    """Biases with which mixtures fire on their share of all tokens beside everything else, where they do not yet.

    At most a threshold has to fall so far that enough tokens of the same coarse cluster, the nearest ones, pass it.
    Most mixtures fire on other tokens too, so it is sought between this one and the first.
    """
    count = len(coarse[1])
    counted = _drawn(len(x), min(len(x), COUNTED), generator).to(x.device)
    least = max(1, math.ceil(OFTEN * len(counted)))
    x, bias, too_high = x[counted], first.clone(), first[-count:]
    places, nearness = _nearest_tokens(encoder, x, coarse[0][counted], coarse[1], least)
    _, last = _firings(encoder, bias, k, x)
    low_enough = torch.maximum(too_high, (last[places] - nearness).max(dim=1).values.clamp_max(0))
    for _ in range(HALVINGS):
        bias[-count:] = (too_high + low_enough) / 2
        enough = _firings(encoder, bias, k, x)[0][-count:] >= least
        low_enough = torch.where(enough, bias[-count:], low_enough)
        too_high = torch.where(enough, too_high, bias[-count:])
    bias[-count:] = low_enough
    return bias


def _firings(
    encoder: ComposedDictionary, bias: Float[Tensor, " n"], k: int, x: Float[Tensor, "tokens m"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " tokens"]]:
    """How often every feature fires, and what the least code of every token is."""
    times, last = torch.zeros(encoder.n, dtype=torch.long, device=x.device), []
    for part in torch.split(x, CHUNK):
        codes = encoder.select(part, k, bias)
        times += torch.bincount(codes.indices[codes.values > 0], minlength=encoder.n)
        last.append(codes.values[:, -1])
    return times, torch.cat(last)


def _nearest_tokens(
    encoder: ComposedDictionary,
    x: Float[Tensor, "tokens m"],
    among: Int[Tensor, " tokens"],
    coarse: Int[Tensor, " count"],
    nearest: int,
) -> tuple[Int[Tensor, "count nearest"], Float[Tensor, "count nearest"]]:
    """The tokens of its coarse cluster that each mixture correlates with most, and how much: minus infinity where there
    are no more of them."""
    places = torch.zeros(len(coarse), nearest, dtype=torch.long, device=x.device)
    nearness = x.new_full((len(coarse), nearest), -torch.inf)
    for part in torch.bincount(coarse).nonzero()[:, 0].tolist():
        tokens = (among == part).nonzero()[:, 0]
        there = min(nearest, len(tokens))
        for mixtures in torch.split((coarse == part).nonzero()[:, 0], MIXTURES_AT_ONCE):
            columns = encoder.columns(encoder.n - len(coarse) + mixtures).values
            found = (columns @ x[tokens].T).topk(there, dim=1)
            places[mixtures, :there], nearness[mixtures, :there] = tokens[found.indices], found.values
    return places, nearness


def _least_squares(
    atoms: DenseDictionary, rows: Int[Tensor, "n d"], targets: Float[Tensor, "n m"]
) -> Float[Tensor, "n d"]:
    """The values on these rows that write the targets best; atoms may be nearly alike."""
    found = []
    for chosen, target in zip(torch.split(rows, CHUNK), torch.split(targets, CHUNK), strict=True):
        there: Bool[Tensor, "n d"] = chosen >= 0
        columns = atoms.values[chosen.clamp_min(0)] * there[..., None]
        gram = columns @ columns.mT
        size = gram.diagonal(dim1=1, dim2=2).sum(dim=1) / there.sum(dim=1)
        gram.diagonal(dim1=1, dim2=2).add_(torch.where(there, RIDGE * size[:, None], 1.0))
        found.append(torch.linalg.solve(gram, columns @ target[..., None])[..., 0] * there)
    return torch.cat(found)


def _composed(atoms: DenseDictionary, rows: Int[Tensor, "n d"], values: Float[Tensor, "n d"]) -> ComposedDictionary:
    """A column of each atom alone, then mixtures of these rows and values."""
    beyond = (0, rows.shape[1] - 1)
    alone = nn.functional.pad(torch.arange(atoms.n, device=rows.device)[:, None], beyond, value=NO_ROW)
    one = nn.functional.pad(torch.ones(atoms.n, 1, device=rows.device), beyond)
    support = Support.from_rows(torch.cat([alone, rows]).to(torch.int32).cpu(), atoms.n)
    return ComposedDictionary(atoms, ExpanderDictionary(support, torch.cat([one, values])))


def _assembled(
    sae: SparseAutoencoder,
    dictionary: ComposedDictionary,
    encoding: Float[Tensor, "count d"],
    bias: Float[Tensor, " n"],
) -> SparseAutoencoder:
    """The autoencoder, whose encoder has these values in its mixtures."""
    grown = SparseAutoencoder(
        dictionary, sae.coder, tied=False, latent_bias=True, provenance=copy.deepcopy(sae.provenance)
    )
    assert isinstance(grown.untied_encoder, ComposedDictionary)
    grown.untied_encoder.mixtures.values[-len(encoding) :] = encoding
    assert grown.latent_bias is not None
    grown.latent_bias.copy_(bias)
    grown.pre_bias.copy_(sae.pre_bias)
    grown.scale.copy_(sae.scale)
    grown.provenance["grown_from"] = {"features": sae.n}
    return grown
