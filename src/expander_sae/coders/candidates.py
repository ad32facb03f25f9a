"""Candidates: one product says which few features may fire, a pursuit among them which do and how strongly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import OneShotCoder, check_fits, code_in_chunks
from expander_sae.dictionaries import Codes, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.kernels import Rules
from expander_sae.kernels.candidates import CandidateColumns, gram_among, pursue_candidates


@dataclass(frozen=True)
class Candidates(OneShotCoder):
    """The features with the largest correlations (plus bias), and orthogonal matching pursuit among them down to k.

    A feature fires only where its own correlation is large, as in one-shot codes, so it keeps its meaning; amplitudes
    are least squares, so sparse columns do not explain the same thing twice. Costs one `select` and a pursuit on the
    inner products of the candidates. With k candidates it is TopK refitted, with all n it is OMP.
    """

    k: int
    """Features per token at most."""
    candidates: int | None = None
    """How many may fire, of which k do; by default a quarter more than k."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        if self.candidates is not None and self.candidates < self.k:
            raise ExpanderError(f"candidates must be at least k = {self.k}, not {self.candidates}.")

    @property
    def width(self) -> int:
        """How many candidates a token has, the default filled in."""
        return self.k + self.k // 4 if self.candidates is None else self.candidates

    def __call__(
        self,
        dictionary: Dictionary,
        x: Float[Tensor, "*batch m"],
        bias: Float[Tensor, " n"] | None = None,
        encoder: Dictionary | None = None,
    ) -> Codes:
        """The candidates are read off the encoder, if there is another than the dictionary."""
        check_fits(self.k, dictionary)
        reader, width = encoder or dictionary, min(self.width, dictionary.n)

        def solve(tokens: Float[Tensor, "batch m"]) -> tuple[Tensor, Tensor]:
            among = reader.select(tokens, width, bias, self.signed).indices
            return fitted(dictionary, tokens, among, self.k, self.signed)

        return code_in_chunks(dictionary, x, self.k, width * (width + dictionary.m), solve)


@torch.no_grad()
def fitted(
    dictionary: Dictionary,
    x: Float[Tensor, "batch m"],
    among: Int[Tensor, "batch c"],
    k: int,
    signed: bool,
    target: Float[Tensor, "batch c"] | None = None,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Values and features of the k among each token's candidates that a pursuit takes; no gradient flows.

    `target` is how the candidates correlate with the token, if that is known already.
    """
    if isinstance(dictionary, ExpanderDictionary):
        scale = dictionary.inverse_norms(x.dtype)[among]
        gram = gram_among(dictionary.values.detach().to(x.dtype), dictionary.rows, among, dictionary.m)
    else:
        gram = dictionary.gram(among, x.dtype)
        norms = gram.diagonal(dim1=-2, dim2=-1).sqrt()  # of the candidates alone, where all are dear
        scale = torch.where(norms > 0, 1 / norms, 0.0)
    gram = gram * scale[:, :, None] * scale[:, None, :]
    target = (dictionary.correlate_at(x, among) if target is None else target).to(x.dtype) * scale

    def synthesis(values: Float[Tensor, "batch k"], places: Int[Tensor, "batch k"]) -> Float[Tensor, "batch m"]:
        return dictionary.synthesize(Codes(values * scale.gather(1, places), among.gather(1, places), dictionary.n))

    candidates = CandidateColumns(gram, target, synthesis)
    values, places = pursue_candidates(candidates, x, Rules(k, signed))
    return values * scale.gather(1, places), among.gather(1, places)
