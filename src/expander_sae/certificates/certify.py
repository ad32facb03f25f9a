"""The certificate of a dictionary: everything that applies to it, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.certificates import pursuit, samples, uniqueness
from expander_sae.certificates.coherence import coherence_of
from expander_sae.certificates.head_mass import HeadMass
from expander_sae.certificates.matrix import Matrix, SparseMatrix, matrix_of
from expander_sae.certificates.overlaps import Overlaps, overlaps
from expander_sae.certificates.progress import Progress, silent
from expander_sae.certificates.samples import Sets, codes_of_store, random_sets, sets_of_codes
from expander_sae.certificates.statements import Certificate, Statement
from expander_sae.certificates.stopping_sets import smallest_stopping_set
from expander_sae.checks import Count, Range, Seed, check_fields
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import adversarial_expansion
from expander_sae.version import __version__

PARTNERS = 32
"""Other columns that the Babel function is computed for; the best dictionaries are certified for fewer."""
SUPPORT_ONLY = "everything about supports (theorems 1, 2, 4 and 6)"


@dataclass(frozen=True)
class CertifyConfig:
    """What to certify, and how long to search and to sample."""

    k: tuple[Count, ...] = ()
    """Features per token to certify for; by default that of the autoencoder's coder."""
    supports: Count = 1000
    """Uniformly random sets of k features to look at."""
    tokens: Count = 1000
    """Tokens whose codes to look at."""
    restarts: Count = 100
    """How often each search for bad sets begins anew."""
    delta: Annotated[float, Range(above=0, below=1)] = 1e-6
    """The chance of a bad draw that counts as none."""
    tau: Annotated[float, Range(0, below=1)] = 0.01
    """Values up to this share of their column's norm are near zero."""
    seed: Seed = 0
    """The seed of the samples and the searches."""

    def __post_init__(self) -> None:
        check_fields(self)


def certify(
    subject: SparseAutoencoder | Dictionary,
    config: CertifyConfig = CertifyConfig(),
    *,
    codes: Store | Codes | None = None,
    report: Progress = silent,
) -> Certificate:
    """What is proved about this very dictionary and what is only measured, kept apart.

    With codes, or a store for the autoencoder to encode tokens of, also about the features that codes really use.
    """
    dictionary = subject.dictionary if isinstance(subject, SparseAutoencoder) else subject
    columns = matrix_of(dictionary, config.tau)
    ks = _asked(subject, config, columns)
    real = _sets_of(subject, columns, codes, config, report)
    statements: list[Statement] = []
    if isinstance(columns, SparseMatrix):
        statements += _about_support(columns, ks, config, report)
    else:
        statements.append(uniqueness.almost_all_dense(columns.m, columns.used.size))
        sentence = "Dense columns touch all coordinates, so that no support can set codes apart."
        statements.append(Statement(SUPPORT_ONLY, "not applicable", sentence, {}))
    statements.append(pursuit.pursuit(coherence_of(columns, PARTNERS, report), ks))
    for population, sets in _populations(columns, ks, real, config):
        found = samples.decide(columns, sets, population, report)
        statements += samples.statements_about(found, population)
    settings = asdict(config) | {"library_version": __version__}
    return Certificate(columns.name, ks, tuple(statements), settings)


def _asked(subject: SparseAutoencoder | Dictionary, config: CertifyConfig, columns: Matrix) -> tuple[int, ...]:
    """The k to certify for."""
    ks = config.k
    if not ks:
        own = getattr(subject.coder, "k", None) if isinstance(subject, SparseAutoencoder) else None
        if own is None:
            raise ExpanderError("There is no coder with a k here; say for which k to certify.")
        ks = (int(own),)
    if max(ks) > columns.used.size:
        raise ExpanderError(f"Only {columns.used.size} columns are not zero, so no code has {max(ks)} features.")
    return ks


def _sets_of(
    subject: SparseAutoencoder | Dictionary,
    columns: Matrix,
    codes: Store | Codes | None,
    config: CertifyConfig,
    report: Progress,
) -> Sets:
    """The features that real codes use; none if there are no codes."""
    if codes is None:
        return []
    if isinstance(codes, Store):
        if not isinstance(subject, SparseAutoencoder):
            raise ExpanderError("A dictionary has no coder for a store; give the autoencoder, or codes.")
        codes = codes_of_store(subject, codes, config.tokens, config.seed, report)
    if codes.n != subject.n:
        raise ExpanderError(f"These codes are for {codes.n} features, the dictionary has {subject.n}.")
    sets = sets_of_codes(codes)
    if not sets:
        raise ExpanderError("No token of these codes uses a feature; give others.")
    if not np.isin(np.concatenate(sets), columns.used).all():
        raise ExpanderError("Some of these codes use a column that is zero; they are not of this dictionary.")
    return sets[: config.tokens]


def _populations(columns: Matrix, ks: tuple[int, ...], real: Sets, config: CertifyConfig) -> Iterator[tuple[str, Sets]]:
    """The sets to look at, by what they are called."""
    for k in ks:
        yield f"random sets of {k}", random_sets(columns.used, k, config.supports, config.seed)
    if real:
        average = sum(each.size for each in real) / len(real)
        yield f"sets of real codes ({len(real):,} tokens, {average:.1f} features each)", real


def _about_support(
    columns: SparseMatrix, ks: tuple[int, ...], config: CertifyConfig, report: Progress
) -> Iterator[Statement]:
    """Everything about where values are, and how large they are there."""
    largest = min(2 * max(ks), columns.used.size)
    shared = overlaps(columns.mask, largest, "overlaps", report)
    stopping = smallest_stopping_set(columns.mask, shared.covers, columns.m, config.restarts, config.seed, report)
    yield uniqueness.values_that_count(columns, config.tau)
    yield uniqueness.by_draw(columns, columns.mask, shared.peelable_set, ks, config.delta, stopping.size)
    yield uniqueness.by_overlaps(shared)
    yield uniqueness.almost_all(shared, columns.d)
    if columns.effective is not columns.mask:
        suffix = uniqueness.WITHOUT_SMALL
        fewer = overlaps(columns.effective, largest, "overlaps without values near zero", report)
        yield uniqueness.by_draw(columns, columns.effective, fewer.peelable_set, ks, config.delta, 0, suffix)
        yield uniqueness.by_overlaps(fewer, suffix)
        yield uniqueness.almost_all(fewer, columns.d, suffix)
    yield uniqueness.stopping_set(columns, stopping, config.restarts)
    if not columns.support.is_even:
        yield from pursuit.not_of_one_degree()
        return
    head_mass = HeadMass.of(columns.values)
    epsilon = _worst_expansion(columns, largest, shared, stopping, config, report)
    yield pursuit.l1_norm(head_mass, shared, columns.d, largest)
    yield pursuit.basis_pursuit(head_mass, shared, epsilon, columns.d, ks)
    yield pursuit.expansion(epsilon, head_mass, columns.d)


def _worst_expansion(
    columns: SparseMatrix,
    largest: int,
    shared: Overlaps,
    stopping: Int64[np.ndarray, " features"],
    config: CertifyConfig,
    report: Progress,
) -> Float64[Tensor, " sizes"]:
    """Entry t-1: the largest 1 - |N(T)| / (d |T|) found, over sets T of at most t features.

    The worst pair and a stopping set are known already; a search finds the rest.
    """
    epsilon = torch.zeros(largest, dtype=torch.float64)
    epsilon[1:] = shared.largest / (2 * columns.d)
    if 0 < stopping.size <= largest:
        touched = np.unique(columns.support.columns(stopping).numpy()).size
        known = epsilon[stopping.size - 1 :]
        known[:] = known.clamp(min=1 - touched / (columns.d * stopping.size))
    for restart in range(config.restarts):
        found = adversarial_expansion(
            columns.support, largest, restarts=1, seed=config.restarts * config.seed + restart
        )
        epsilon = torch.maximum(epsilon, found.epsilon)
        report("bad sets", restart + 1, config.restarts)
    return epsilon
