"""How close reconstructions are to activations, summed per document while they stream by."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders.named import name_of
from expander_sae.evaluation.bootstrap import Bootstrap, DocumentSums
from expander_sae.evaluation.results import DENSITY_EDGES, Evaluation, Interval, LanguageModelLoss, Scope


class ReconstructionMeter:
    """The sums that an autoencoder's metrics of reconstruction are ratios of."""

    def __init__(self, sae: SparseAutoencoder, mean: Float64[Tensor, " m"], documents: int) -> None:
        """`mean` is that of the activations to come: then predicting it explains exactly nothing."""
        self._sae, self._mean = sae, mean
        self._tokens, self._squares, self._variation, self._cosines, self._active = (
            DocumentSums(documents) for _ in range(5)
        )
        self._fired = torch.zeros(sae.n, dtype=torch.int64)

    @torch.no_grad()
    def add(self, x: Float[Tensor, "tokens m"], document: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens m"]:
        """Measure some tokens; gives back their reconstructions, in the autoencoder's own precision."""
        codes = self._sae.encode(x.to(self._sae.pre_bias.device))
        reconstruction = self._sae.decode(codes).to(x.device)
        exact, rebuilt = x.double(), reconstruction.double()
        self._squares.add((exact - rebuilt).square().sum(dim=1), document)
        self._variation.add((exact - self._mean.to(x.device)).square().sum(dim=1), document)
        self._cosines.add(torch.nn.functional.cosine_similarity(exact, rebuilt, dim=1), document)
        self._active.add(codes.l0, document)
        self._tokens.add(torch.ones(len(x)), document)
        self._fired += torch.bincount(codes.indices[codes.active], minlength=self._sae.n).cpu()
        return reconstruction

    def evaluation(
        self, name: str, scope: Scope, bootstrap: Bootstrap, language_model: LanguageModelLoss | None = None
    ) -> Evaluation:
        """What was measured, as numbers with intervals."""
        fvu = bootstrap.ratio(self._squares.sums, self._variation.sums)
        return Evaluation(
            name=name,
            coder=name_of(self._sae.coder),
            tokens=scope.tokens,
            documents=scope.documents,
            passed_through=scope.passed_through,
            fvu=fvu,
            explained_variance=Interval(1 - fvu.value, 1 - fvu.high, 1 - fvu.low, fvu.kind),
            cosine=bootstrap.ratio(self._cosines.sums, self._tokens.sums),
            l0=bootstrap.ratio(self._active.sums, self._tokens.sums),
            never_fired=float((self._fired == 0).double().mean()),
            density=self._density(),
            learned_values=self._sae.learned_values,
            language_model=language_model,
            setting=scope.setting,
        )

    def _density(self) -> list[int]:
        """Features that fired, counted between DENSITY_EDGES by how often they did."""
        frequency = (self._fired[self._fired > 0] / self._tokens.total).log10()
        edges = torch.tensor(DENSITY_EDGES)
        return torch.histogram(frequency.clamp(edges[0], edges[-1]), edges).hist.long().tolist()
