"""The language model's loss while a dictionary is in training."""

from __future__ import annotations

import torch

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation.autoencoders import check_width
from expander_sae.evaluation.losses import Baselines, PatchedLoss
from expander_sae.evaluation.setting import Setting
from expander_sae.evaluation.text import Passage, TextActivations
from expander_sae.interventions.replaced import PatchedModel


class LossProbe:
    """`probe(sae)` gives what the language model loses with the autoencoder in place, on the first tokens of a text.

    What does not depend on the autoencoder is measured once, when the probe is made. Give it text that training does
    not see.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        hookpoint: str,
        text: TextConfig,
        tokens: int,
        *,
        massive_above: float | None = None,
    ) -> None:
        """Without `massive_above`, tokens are massive from 4 times this text's median norm on."""
        self._hookpoint = Setting.of({}, language_model, hookpoint, text).hookpoint
        passage = Passage.of(language_model, text, tokens)
        self._activations = TextActivations(language_model, self._hookpoint, passage, massive_above)
        self._model = PatchedModel(language_model, self._hookpoint)
        self._baselines = Baselines(self._model, self._activations.mean, passage.documents)
        for part in self._activations.parts():
            self._baselines.add(part)

    @torch.no_grad()
    def __call__(self, sae: SparseAutoencoder) -> dict[str, float]:
        """ce; ce_delta, how far that is above the clean one; ce_recovered_zero and ce_recovered_mean.

        A recovered share is left out where its ablation does not raise the cross-entropy.
        """
        check_width({"The autoencoder": sae}, self._activations.width, f"those of {self._hookpoint}")
        patched = PatchedLoss.empty(self._activations.passage.documents)
        for part in self._activations.parts():
            reconstruction = sae(part.x.to(sae.pre_bias.device)).to(part.activations.device)
            patched.add(self._model, part, reconstruction, clean=None)
        base = self._baselines
        predictions, loss, clean = base.predictions.total, patched.entropy.total, base.clean.total
        found = {"ce": loss / predictions, "ce_delta": (loss - clean) / predictions}
        for name, ablated in (("zero", base.zero.total), ("mean", base.mean.total)):
            if ablated > clean:
                found[f"ce_recovered_{name}"] = (ablated - loss) / (ablated - clean)
        return found
