"""Codes that a loss behind the reconstruction can be differentiated through."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, BatchTopK, Candidates, TopK
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError
from expander_sae.kernels.refit import solve_used

CODERS = (OMP, Candidates, TopK, BatchTopK)
"""Coders whose codes have a derivative here."""


def check_coder(sae: SparseAutoencoder) -> None:
    """Refuse an autoencoder whose codes have no derivative here."""
    if not isinstance(sae.coder, CODERS):
        names = ", ".join(coder.__name__ for coder in CODERS)
        raise ExpanderError(
            f"Fine-tuning follows codes of {names}, not of {type(sae.coder).__name__}; give an autoencoder with one of "
            "those."
        )
    if isinstance(sae.coder, OMP) and (sae.latent_bias is not None or not sae.tied):
        raise ExpanderError("OMP works on the dictionary alone; give an autoencoder without encoder and latent bias.")
    if isinstance(sae.coder, Candidates) and not sae.tied:
        raise ExpanderError("Nothing of an encoder under Candidates could be learned here; give a tied autoencoder.")


def differentiable_residual(sae: SparseAutoencoder, x: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens m"]:
    """What the codes leave unexplained of the scaled activations, as `sae.residual` says, with the codes' derivative.

    One-shot codes have theirs. The codes z of OMP and of Candidates are the least squares on the columns W that they
    chose and kept, so that G dz = dW^T r + W^T dr, where G = W^T W, r is the residual and dr its change at fixed z. For
    a squared error
    this makes no difference, as r is orthogonal to W, and little with k far below m, as most of a gradient is too.
    """
    codes, residual, _ = sae.residual(x)
    if not isinstance(sae.coder, OMP | Candidates):
        return residual
    with torch.no_grad():
        gram = sae.dictionary.gram(codes.indices)
    correlation = sae.dictionary.correlate_at(residual, codes.indices)
    change = solve_used(gram, correlation, codes.active)
    # The change itself is rounding; its derivative is that of the codes.
    return sae.dictionary.synthesize(Codes(change.detach() - change, codes.indices, codes.n), residual)
