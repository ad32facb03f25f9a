"""Cross-entropy and KL divergence of a language model, summed per document."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from expander_sae.evaluation.bootstrap import Bootstrap, DocumentSums
from expander_sae.evaluation.results import Interval, LanguageModelLoss
from expander_sae.evaluation.text import Part
from expander_sae.interventions.replaced import PatchedModel

ENTRIES_AT_ONCE = 2**23
"""Logits that are turned into probabilities together."""


def token_losses(
    part: Part, logits: Float[Tensor, "pieces length vocabulary"], clean: Tensor | None = None
) -> tuple[Float[Tensor, " predictions"], Float[Tensor, " predictions"]]:
    """The cross-entropy of every prediction that counts, and KL(clean || logits), zero without clean logits."""
    rows = part.predicts.flatten().nonzero()[:, 0]
    targets = part.ids.roll(-1, dims=1).flatten()
    found = []
    for some in torch.split(rows, max(1, ENTRIES_AT_ONCE // logits.shape[-1])):
        new = logits.flatten(0, 1)[some].float().log_softmax(dim=-1)
        entropy = -new.gather(1, targets[some, None])[:, 0]
        found.append((entropy, _divergence(clean.flatten(0, 1)[some], new) if clean is not None else 0 * entropy))
    entropies, divergences = zip(*found, strict=True)
    return torch.cat(entropies), torch.cat(divergences)


def _divergence(clean: Float[Tensor, "tokens vocabulary"], new: Float[Tensor, "tokens vocabulary"]) -> Tensor:
    """KL between the predictions of clean logits and these log-probabilities."""
    old = clean.float().log_softmax(dim=-1)
    return (old.exp() * (old - new)).sum(dim=-1)


class Baselines:
    """What the model loses whatever autoencoder is measured: as it is, and with zeros or the mean in place."""

    def __init__(self, model: PatchedModel, mean: Float64[Tensor, " m"], documents: int) -> None:
        self.predictions, self.clean, self.zero, self.mean = (DocumentSums(documents) for _ in range(4))
        self._model, self._mean = model, mean

    @torch.no_grad()
    def add(self, part: Part) -> Float[Tensor, "pieces length vocabulary"]:
        """Measure a batch; gives back its clean logits."""
        document = part.documents_at(part.predicts)
        clean = self._model.logits(part.ids, part.activations)
        entropy, _ = token_losses(part, clean)
        self.clean.add(entropy, document)
        self.predictions.add(torch.ones(len(document)), document)
        mean = self._mean.to(part.activations)
        for sums, filling in ((self.zero, torch.zeros_like(mean)), (self.mean, mean)):
            # Without a name for the logits: they must be gone before the next ones come.
            sums.add(token_losses(part, self._model.logits(part.ids, part.replaced_by(filling)))[0], document)
        return clean


@dataclass(frozen=True)
class PatchedLoss:
    """What the model loses with an autoencoder's reconstructions in place."""

    entropy: DocumentSums
    divergence: DocumentSums

    @classmethod
    def empty(cls, documents: int) -> PatchedLoss:
        """Nothing measured yet."""
        return cls(DocumentSums(documents), DocumentSums(documents))

    @torch.no_grad()
    def add(
        self, model: PatchedModel, part: Part, reconstruction: Float[Tensor, "tokens m"], clean: Tensor | None
    ) -> None:
        """Measure a batch; the divergence only where clean logits are given."""
        logits = model.logits(part.ids, part.replaced_by(reconstruction))
        entropy, divergence = token_losses(part, logits, clean)
        document = part.documents_at(part.predicts)
        self.entropy.add(entropy, document)
        self.divergence.add(divergence, document)


def language_model_loss(
    bootstrap: Bootstrap, baselines: Baselines, patched: PatchedLoss, reference: PatchedLoss | None
) -> LanguageModelLoss:
    """The sums of all batches as numbers with intervals."""
    predictions = baselines.predictions.sums

    def retention(ablated: DocumentSums) -> Interval | None:
        # Both shares are of the same ablated - clean, which cancels.
        if reference is None:
            return None
        return bootstrap.ratio(ablated.sums - patched.entropy.sums, ablated.sums - reference.entropy.sums)

    def recovered(ablated: DocumentSums) -> Interval:
        return bootstrap.ratio(ablated.sums - patched.entropy.sums, ablated.sums - baselines.clean.sums)

    return LanguageModelLoss(
        clean=bootstrap.ratio(baselines.clean.sums, predictions),
        patched=bootstrap.ratio(patched.entropy.sums, predictions),
        zero=bootstrap.ratio(baselines.zero.sums, predictions),
        mean=bootstrap.ratio(baselines.mean.sums, predictions),
        kl=bootstrap.ratio(patched.divergence.sums, predictions),
        recovered_zero=recovered(baselines.zero),
        recovered_mean=recovered(baselines.mean),
        retention_zero=retention(baselines.zero),
        retention_mean=retention(baselines.mean),
    )
