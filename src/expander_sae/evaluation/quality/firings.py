"""Which features fire on which tokens: the codes of a text as a sparse matrix, and the features that are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes

TOKENS_AT_ONCE = 4096
"""Tokens that are encoded together."""
LEAST_TOKENS = 30
"""A feature is measured when it fires on this many tokens or more ..."""
LEAST_DOCUMENTS = 10
"""... in this many documents or more: its ten strongest contexts are each of another document."""


@torch.no_grad()
def firings_of(sae: SparseAutoencoder, x: Float[Tensor, "tokens m"]) -> csc_array:
    """The codes of these activations as a matrix `[tokens, n]`, column by column."""
    device = sae.pre_bias.device
    pieces = [sae.encode(part.to(device, torch.float32)).to("cpu") for part in torch.split(x, TOKENS_AT_ONCE)]
    return as_matrix(Codes.concatenate(pieces))


def as_matrix(codes: Codes) -> csc_array:
    """Codes `[tokens, k]` as a sparse matrix `[tokens, n]`."""
    active = codes.active
    token, _ = active.nonzero(as_tuple=True)
    entries = (codes.values[active].float().numpy(), (token.numpy(), codes.indices[active].numpy()))
    matrix = csr_array(entries, shape=(len(codes.values), codes.n)).tocsc()
    matrix.sort_indices()
    return matrix


def lengths_of(firings: csc_array) -> NDArray[np.float64]:
    """The Euclidean length of every feature's activations."""
    squares = firings.astype(np.float64).power(2).sum(axis=0)
    return np.sqrt(np.asarray(squares).ravel())


def cosines_of_firing(one: csc_array, other: csc_array | csr_array, lengths: NDArray[np.float64]) -> csr_array:
    """The cosine of every feature of one dictionary with every feature of another, by their activations on some tokens.

    `one` holds all firings of its features; `other` those of its own on the same tokens, and `lengths` over all tokens.
    A feature that is silent has the cosine 0.
    """
    products = csr_array(one.astype(np.float64).T @ other)
    own = np.repeat(lengths_of(one), np.diff(products.indptr))
    products.data /= (own * lengths[products.indices]).clip(min=1e-30)
    return products


def raw_coordinates(centred: Float[Tensor, "tokens m"]) -> csc_array:
    """Centred activations as firings of 2 m features: how far each coordinate is above its mean, and below it."""
    values = centred.float().numpy()
    return csc_array(np.concatenate([values.clip(min=0), (-values).clip(min=0)], axis=1))


@dataclass(frozen=True)
class Measured:
    """The features that a measurement is about."""

    features: NDArray[np.int64]
    """Drawn at random from those that fire often enough, in ascending order."""
    firing: int
    """Features that fire on at least one token."""
    eligible: int
    """Features that fire on 30 or more tokens in 10 or more documents."""
    n: int


def draw(
    firings: csc_array, document: NDArray[np.int64], wanted: int, seed: int, eligible: NDArray[np.int64] | None = None
) -> Measured:
    """At most `wanted` of the features that fire often enough (or of those given), the same for the same seed."""
    found = firing_often(firings, document) if eligible is None else eligible
    features = np.random.default_rng(seed).permutation(found)[:wanted]
    firing = int((np.diff(firings.indptr) > 0).sum())
    return Measured(np.sort(features), firing, len(found), firings.shape[1])


def firing_often(firings: csc_array, document: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
    """The features that fire on 30 or more tokens in 10 or more documents."""
    counts = np.diff(firings.indptr)
    documents = int(document.max()) + 1 if len(document) else 0
    column = np.repeat(np.arange(firings.shape[1]), counts)
    pairs = np.unique(column * documents + document[firings.indices])
    in_documents = np.bincount(pairs // max(1, documents), minlength=firings.shape[1])
    return np.flatnonzero((counts >= LEAST_TOKENS) & (in_documents >= LEAST_DOCUMENTS))
