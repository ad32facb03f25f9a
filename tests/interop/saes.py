"""Small autoencoders of every kind that other libraries can hold, with weights that are related in no way."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

import expander_sae as xs

M, N, K = 24, 60, 5
ORIGIN = {"model": "a/model", "revision": None, "hookpoint": "layers.3", "context": 32, "bos": True, "text": "prose"}

KINDS = {
    "topk": xs.TopK(K),
    "abstopk": xs.TopK(K, signed=True),
    "batch_topk": xs.BatchTopK(K, threshold=0.7),
    "jumprelu": xs.JumpReLU(),
    "matching_pursuit": xs.MatchingPursuit(K),
}


def autoencoder(kind: str, *, sparse: bool = True, tied: bool = True, seed: int = 0) -> xs.SparseAutoencoder:
    """An autoencoder under the coder of this kind, its scale and its biases far from what they are by default."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if sparse:
        dictionary: xs.Dictionary = xs.ExpanderDictionary(xs.Support.make("uniform", m=M, n=N, d=4), normal(N, 4))
    else:
        dictionary = xs.DenseDictionary(M, N, normal(N, M))
    if kind == "matching_pursuit":
        return _filled(xs.SparseAutoencoder(dictionary, KINDS[kind], provenance={"activations": ORIGIN}), normal)
    sae = xs.SparseAutoencoder(
        dictionary,
        KINDS[kind],
        tied=tied,
        latent_bias=True,
        thresholds=kind == "jumprelu",
        provenance={"activations": ORIGIN},
    )
    if sae.untied_encoder is not None:
        values = sae.untied_encoder.get_parameter("values").data
        values.copy_(normal(*values.shape))
    return _filled(sae, normal)


def _filled(sae: xs.SparseAutoencoder, normal) -> xs.SparseAutoencoder:
    with torch.no_grad():
        sae.pre_bias.copy_(normal(M))
        sae.scale.fill_(1.7)
        if sae.latent_bias is not None:
            sae.latent_bias.copy_(0.3 * normal(N))
        if sae.thresholds is not None:
            sae.thresholds.copy_(normal(N).abs())
    return sae


def activations(tokens: int = 200, seed: int = 1) -> Float[Tensor, "tokens m"]:
    """Activations that no few features explain."""
    return torch.randn(tokens, M, generator=torch.Generator().manual_seed(seed))


def check_same(found: Tensor, expected: Tensor) -> None:
    """Refuse a difference of more than a millionth of the largest number, which is what rounding makes of float32."""
    error = float((found.detach() - expected.detach()).abs().max() / expected.detach().abs().max())
    assert error <= 1e-6, error
