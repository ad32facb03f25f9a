"""What a study of sparse coding is asked for: the true dictionary and codes, what is known of them, and who codes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from expander_sae.checks import (
    Count,
    Positive,
    Seed,
    SomeShare,
    StudyFolder,
    Weight,
    check_fields,
    different,
    distinct,
    one_of,
)
from expander_sae.errors import ExpanderError
from expander_sae.supports import constructions

DENSE: Literal["dense"] = "dense"
EXPANDER: Literal["expander"] = "expander"
"""The two kinds of true dictionary."""
KNOWN_CODES, KNOWN_DICTIONARY, NEITHER = "known codes", "known dictionary", "neither"
SETTINGS = {"codes": KNOWN_CODES, "dictionary": KNOWN_DICTIONARY, "neither": NEITHER}
"""What is known while learning, by the words of the command line."""
TOPK, RELU, MLP, OPTIMISED, REFINED, OMP, LASSO = "topk", "relu", "mlp", "optimised", "topk+optimised", "omp", "lasso"
CODERS = (TOPK, RELU, MLP, OPTIMISED, OMP, LASSO, REFINED)
"""All coders, in the order of the tables."""
WIDTH = 4
"""Codes per active feature that dictionaries learn from under l1, which spreads codes out."""
LEARNING_GAP = 1e-2
"""The duality gap at which the lasso stops while a dictionary learns from its codes."""


@dataclass(frozen=True)
class CodingConfig:
    """Compare encoders with coders that solve for each token, where the true codes and dictionary are known.

    Linear encoders (TopK, ReLU), an MLP, codes optimised by gradient from zero or from an encoder, OMP and the lasso;
    given the codes, the dictionary, or neither; dense and expander truths. Scores with intervals over seeds, costs in
    multiply-adds. Run it again to go on where it was stopped.
    """

    m: Count = 32
    """Width of an activation."""
    n: Count = 96
    """Features."""
    d: Count = 5
    """Values per column of the expander dictionary."""
    k: Count = 3
    """Active features per token; coefficients lie between 0.5 and 1.5."""
    construction: str = "uniform"
    """The support of the true expander dictionary; what is learned finds its rows itself."""
    noise: Weight = 0.05
    """Norm of added noise as a share of the activation's."""
    truths: tuple[Literal["dense", "expander"], ...] = (DENSE, EXPANDER)
    """True dictionaries; what is learned is of the same kind."""
    known: tuple[Literal["codes", "dictionary", "neither"], ...] = ("codes", "dictionary", "neither")
    """What is known while learning."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds; each draws another world, and everything is learned in it anew."""
    samples: Count = 16_384
    """Activations to learn from."""
    tokens: Count = 262_144
    """Tokens to learn from; more than there are samples means several passes."""
    solver_tokens: Count = 32_768
    """Tokens for dictionaries that learn from solved codes, which take longer per token and need fewer."""
    batch: Count = 256
    """Tokens per step of learning."""
    learning_rate: Positive = 0.003
    """Learning rate of the encoders; dictionaries that learn from solved codes take the library's rule."""
    hidden: Count = 256
    """Hidden units of the MLP, beside which it has a linear shortcut."""
    penalty: SomeShare = 0.1
    """Weight of the l1 norm, where there is one, as a share of the weight at which a token's codes become zero."""
    steps: Count = 50
    """Gradient steps of optimised codes from zero."""
    refining_steps: Count = 10
    """Gradient steps from where the TopK encoder left off."""
    test_tokens: Count = 2048
    """Tokens to measure on, which nothing learned from."""
    out: StudyFolder = Path("runs/coding")
    """The folder for everything that is made; a second run goes on there."""

    def __post_init__(self) -> None:
        check_fields(self)
        different("truths", self.truths, (DENSE, EXPANDER))
        different("known", self.known, tuple(SETTINGS))
        distinct("seeds", self.seeds, 0)
        if self.k > self.n or self.d > self.m:
            raise ExpanderError(
                f"k must be at most n = {self.n} and d at most m = {self.m}, not {self.k} and {self.d}."
            )
        if self.batch > min(self.samples, self.tokens, self.solver_tokens):
            raise ExpanderError(f"samples, tokens and solver_tokens must be at least one batch of {self.batch}.")
        one_of("construction", self.construction, constructions())

    @property
    def settings(self) -> list[str]:
        """What is known in each setting, in words."""
        return [SETTINGS[name] for name in self.known]

    def entries(self, truth: str) -> int:
        """Values per column of a dictionary of this kind."""
        return self.m if truth == DENSE else self.d
