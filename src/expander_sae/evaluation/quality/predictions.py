"""What a language model predicts behind any token of a text, from its last hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.activations.models import LanguageModel
from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class Predictions:
    """Last hidden states and the output embedding: a distribution over the vocabulary is made when it is asked for.

    The distributions of a whole text would take a hundred times the memory of its hidden states.
    """

    hidden: Float[Tensor, "tokens width"]
    embedding: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, " vocabulary"] | None = None
    softcap: float | None = None
    """Logits are squeezed to this size, as c tanh(logits / c), in models that do so."""

    def logits(self, tokens: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen vocabulary"]:
        """Of the next token behind each of these."""
        logits = torch.nn.functional.linear(self.hidden[tokens], self.embedding, self.bias)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def roots(self, tokens: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen vocabulary"]:
        """Square roots of the probabilities of the next token, unit vectors whose inner product is an affinity."""
        return torch.softmax(self.logits(tokens).float(), dim=-1).sqrt_()

    def check(self, language_model: LanguageModel, ids: Int[Tensor, "pieces length"]) -> None:
        """Refuse a model whose own logits for these tokens are others."""
        with torch.no_grad():
            own = language_model.model(input_ids=ids, use_cache=False).logits.flatten(0, 1)
        if not torch.allclose(self.logits(torch.arange(len(own))), own, rtol=1e-2, atol=1e-2 * float(own.abs().max())):
            raise ExpanderError(
                f"{language_model.name} does something to its logits behind the output embedding that is not known "
                "here, so the predictions of its tokens cannot be compared."
            )

    @classmethod
    def of(cls, language_model: LanguageModel, hidden: Float[Tensor, "tokens width"]) -> Predictions:
        """Those that the model makes from these last hidden states."""
        head = language_model.model.get_output_embeddings()
        config = language_model.model.config.get_text_config()
        if head is None:
            raise ExpanderError(f"{language_model.name} has no output embedding; give a causal language model.")
        bias = getattr(head, "bias", None)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(hidden, head.weight.detach(), bias, softcap)
