"""Planted activations with everything known about them, and how well codes and columns match the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory
from expander_sae.studies.coding.config import DENSE, CodingConfig
from expander_sae.supports import Support

USED = 0.1
"""A feature counts as used by a token above this code; planted ones lie between 0.5 and 1.5."""


@dataclass(frozen=True)
class Tokens:
    """Activations, and the codes that made them."""

    x: Float[Tensor, "tokens m"]
    codes: Float[Tensor, "tokens n"]


@dataclass(frozen=True)
class World:
    """A true dictionary, tokens to learn from and others to measure on."""

    dictionary: Dictionary
    train: Tokens
    test: Tokens

    @classmethod
    def draw(cls, config: CodingConfig, truth: str, seed: int) -> World:
        """Draw the dictionary and all tokens from a seed."""
        tokens = config.samples + config.test_tokens
        held = 4.0 * tokens * (config.m + 2 * config.n)
        check_memory(f"A world of {tokens:,} activations", held, instead="give fewer samples or test_tokens")
        generator = torch.Generator().manual_seed(seed)
        dictionary = true_dictionary(config, truth, seed, generator)
        return cls(
            dictionary,
            _tokens(config, dictionary, config.samples, generator),
            _tokens(config, dictionary, config.test_tokens, generator),
        )


def true_dictionary(config: CodingConfig, truth: str, seed: int, generator: torch.Generator) -> Dictionary:
    """Unit columns with normally distributed values."""
    if truth == DENSE:
        return DenseDictionary(config.m, config.n, generator=generator)
    support = Support.make(config.construction, m=config.m, n=config.n, d=config.d, seed=seed)
    dictionary = ExpanderDictionary(support, torch.randn(config.n, config.d, generator=generator))
    dictionary.normalise_columns()
    return dictionary


@torch.no_grad()
def _tokens(config: CodingConfig, dictionary: Dictionary, count: int, generator: torch.Generator) -> Tokens:
    indices = torch.rand(count, config.n, generator=generator).argsort(dim=1)[:, : config.k]
    codes = Codes(0.5 + torch.rand(indices.shape, generator=generator), indices, config.n)
    x, noise = dictionary.synthesize(codes), torch.randn(count, config.m, generator=generator)
    size = config.noise * torch.linalg.vector_norm(x, dim=1, keepdim=True) / config.m**0.5
    return Tokens(x + size * noise, codes.to_dense())


@dataclass(frozen=True)
class Scores:
    """How near codes and columns come to the true ones, after matching features one to one."""

    features: float
    """Mean cosine between true and learned columns, matched one to one so that it is largest."""
    codes: float
    """Mean correlation over tokens between true and found codes of a feature, matched the same way by themselves."""
    precision: float
    """Share of the features a token uses that are true, after the matching by codes."""
    recall: float
    """Share of the true features of a token that it uses."""
    error: float
    """Squared norm of what is left of the activations, as a share of theirs."""


def scores_of(
    world: World,
    columns: Float[Tensor, "n m"],
    offset: Float[Tensor, " m"],
    codes: Float[Tensor, "tokens n"],
) -> Scores:
    """Score codes of the test tokens, over columns of unit norm and an offset that all tokens share."""
    if not bool(columns.isfinite().all() & codes.isfinite().all() & offset.isfinite().all()):
        raise ExpanderError("What was learned is not finite; use a smaller learning rate.")
    test = world.test
    alike = torch.nn.functional.normalize(world.dictionary.to_dense().detach().T, dim=1) @ columns.T
    together = _correlations(test.codes, codes)
    found = codes[:, _matching(together)] > USED
    true = test.codes > 0
    hits = float((found & true).sum())
    residual = test.x - offset - codes @ columns
    return Scores(
        features=_matched(alike),
        codes=_matched(together),
        precision=hits / max(1, int(found.sum())),
        recall=hits / int(true.sum()),
        error=float(residual.square().sum() / test.x.square().sum()),
    )


def _correlations(one: Float[Tensor, "tokens n"], other: Float[Tensor, "tokens n"]) -> Float[Tensor, "n n"]:
    """Correlations over tokens of every feature of one with every feature of the other; zero for a constant one."""
    parts = [torch.nn.functional.normalize(each - each.mean(dim=0), dim=0) for each in (one, other)]
    return parts[0].T @ parts[1]


def _matching(alike: Float[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """The one-to-one assignment of columns to rows with the largest sum."""
    return torch.from_numpy(linear_sum_assignment(alike.double().numpy(), maximize=True)[1])


def _matched(alike: Float[Tensor, "n n"]) -> float:
    """Mean similarity of the matched pairs."""
    return float(alike.gather(1, _matching(alike)[:, None]).mean())
