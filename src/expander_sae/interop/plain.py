"""The form that all other libraries share, in which every foreign format is read and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import BatchTopK, Coder, JumpReLU, MatchingPursuit, TopK
from expander_sae.coders.named import name_of
from expander_sae.dictionaries import DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import NO_ROW, Support

Activation = Literal["topk", "abstopk", "jumprelu", "matching_pursuit"]

SPARSE = 0.25
"""At most this share of a decoder is nonzero where it is worth an expander dictionary."""
SAME = 5e-7
"""How far rounding to float32 takes a tied encoder from its decoder, relative to the largest entry."""


@dataclass(frozen=True)
class Plain:
    """Codes are `activation(encoder (x - bias) + latent_bias)`, a reconstruction is `decoder^T codes + bias`."""

    encoder: Float[Tensor, "n m"]
    latent_bias: Float[Tensor, " n"]
    decoder: Float[Tensor, "n m"]
    bias: Float[Tensor, " m"]
    activation: Activation
    k: int | None = None
    """Features per token; None for jumprelu."""
    thresholds: Float[Tensor, " n"] | None = None
    """Above what a feature fires, for jumprelu; None for ReLU."""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def m(self) -> int:
        """Width of an activation."""
        return self.decoder.shape[1]

    @property
    def n(self) -> int:
        """Number of features."""
        return self.decoder.shape[0]

    @classmethod
    @torch.no_grad()
    def of(cls, sae: SparseAutoencoder) -> Plain:
        """An autoencoder in this form; the scale of the input goes into the weights.

        A matching pursuit of others has unit columns, so there a code counts in units of its column.
        """
        activation, k, thresholds = _activation_of(sae)
        scale = float(sae.scale)
        decoder = sae.dictionary.to_dense().T.contiguous() / scale
        encoder = sae.encoder.to_dense().T.contiguous() * scale
        if activation == "matching_pursuit":
            encoder = decoder = nn.functional.normalize(decoder, dim=1)
        zeros = torch.zeros(sae.n, device=decoder.device, dtype=decoder.dtype)
        bias = sae.latent_bias if isinstance(sae.coder, TopK | BatchTopK | JumpReLU) else None
        return cls(
            encoder=encoder,
            latent_bias=zeros if bias is None else bias.detach(),
            decoder=decoder,
            bias=sae.pre_bias.detach() / scale,
            activation=activation,
            k=k,
            thresholds=thresholds,
            provenance=sae.provenance,
        )

    @classmethod
    def of_matrices(
        cls,
        tensors: Mapping[str, Tensor],
        activation: Activation,
        *,
        k: int | None = None,
        thresholds: Float[Tensor, " n"] | None = None,
    ) -> Plain:
        """Out of `W_enc` [m, n], `b_enc`, `W_dec` and `b_dec`, as TransformerLens names and lays them out."""
        return cls(
            encoder=tensors["W_enc"].T,
            latent_bias=tensors["b_enc"],
            decoder=tensors["W_dec"],
            bias=tensors["b_dec"],
            activation=activation,
            k=k,
            thresholds=thresholds,
        )

    @classmethod
    def of_layers(
        cls,
        tensors: Mapping[str, Tensor],
        activation: Activation,
        *,
        bias: str = "b_dec",
        k: int | None = None,
        thresholds: Float[Tensor, " n"] | None = None,
    ) -> Plain:
        """Out of the linear layers `encoder` and `decoder`, the latter without its bias, which is called otherwise."""
        return cls(
            encoder=tensors["encoder.weight"],
            latent_bias=tensors["encoder.bias"],
            decoder=tensors["decoder.weight"].T,
            bias=tensors[bias],
            activation=activation,
            k=k,
            thresholds=thresholds,
        )

    @classmethod
    def of_gated(
        cls,
        *,
        encoder: Float[Tensor, "n m"],
        gate_bias: Float[Tensor, " n"],
        magnitude_bias: Float[Tensor, " n"],
        log_magnitude: Float[Tensor, " n"],
        decoder: Float[Tensor, "n m"],
        bias: Float[Tensor, " m"],
    ) -> Plain:
        """A gated autoencoder: gate and magnitude read one score, so the gate is a threshold on the magnitude."""
        magnitude = log_magnitude.exp()
        return cls(
            encoder=encoder * magnitude[:, None],
            latent_bias=magnitude_bias,
            decoder=decoder,
            bias=bias,
            activation="jumprelu",
            thresholds=(magnitude_bias - magnitude * gate_bias).clamp(min=0),
        )

    def without_subtracted_bias(self) -> Plain:
        """The same numbers read as those of a library that does not subtract the bias from the input."""
        return dataclasses.replace(self, latent_bias=self.latent_bias + self.encoder @ self.bias)

    def with_unit_columns(self) -> Plain:
        """The same reconstructions from columns of unit norm, the norms now in the codes; zero columns stay zero."""
        norms = torch.linalg.vector_norm(self.decoder, dim=1)
        norms = torch.where(norms > 0, norms, 1.0)
        return dataclasses.replace(
            self,
            encoder=self.encoder * norms[:, None],
            latent_bias=self.latent_bias * norms,
            decoder=self.decoder / norms[:, None],
        )

    def with_provenance(self, provenance: Mapping[str, Any]) -> Plain:
        """The same, and where it comes from."""
        return dataclasses.replace(self, provenance=provenance)

    @torch.no_grad()
    def autoencoder(self) -> SparseAutoencoder:
        """This as an autoencoder: tied where encoder and decoder are proportional, sparse where the decoder is."""
        self._check()
        scale = self._tied_scale()
        dictionary, encoder = _dictionary_of(self.decoder * (scale or 1.0), self.encoder if scale is None else None)
        sae = SparseAutoencoder(
            dictionary,
            self._coder(),
            tied=encoder is None,
            latent_bias=self.activation != "matching_pursuit" and bool(self.latent_bias.any()),
            thresholds=self.thresholds is not None,
            provenance=self.provenance,
        )
        sae.scale.fill_(scale or 1.0)
        sae.pre_bias.copy_(self.bias * (scale or 1.0))
        if sae.untied_encoder is not None and encoder is not None:
            sae.untied_encoder.get_parameter("values").copy_(encoder)
        for own, given in ((sae.latent_bias, self.latent_bias), (sae.thresholds, self.thresholds)):
            if own is not None and given is not None:
                own.copy_(given)
        return sae

    def _coder(self) -> Coder:
        if self.activation == "jumprelu":
            return JumpReLU()
        if self.k is None:
            raise ExpanderError(f"Nothing says how many features a token has under {self.activation}; give k.")
        if self.activation == "matching_pursuit":
            return MatchingPursuit(self.k)
        return TopK(self.k, signed=self.activation == "abstopk")

    def _check(self) -> None:
        """Refuse tensors that do not belong together, or are not finite."""
        n, m = self.decoder.shape
        shapes = {"encoder": (n, m), "latent_bias": (n,), "bias": (m,), "thresholds": (n,)}
        for name, shape in shapes.items():
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ExpanderError(
                    f"The decoder has {n} features of width {m}, so the {name.replace('_', ' ')} must be "
                    f"{list(shape)}, not {list(tensor.shape)}."
                )
        for name in (*shapes, "decoder"):
            tensor = getattr(self, name)
            if tensor is not None and not torch.isfinite(tensor).all():
                raise ExpanderError(f"The {name.replace('_', ' ')} has values that are not finite; copy it again.")
        if self.k is not None and not 1 <= self.k <= n:
            raise ExpanderError(f"k must be between 1 and the number of features, {n}, not {self.k}.")

    def _tied_scale(self) -> float | None:
        """The scale that makes one set of values serve as encoder and decoder; None if none does."""
        if self.activation == "matching_pursuit":
            return 1.0
        size = float(torch.linalg.vector_norm(self.decoder.double()))
        square = float((self.encoder.double() * self.decoder.double()).sum()) / size**2 if size else 0.0
        if square <= 0:
            return None
        error = (self.encoder - square * self.decoder).abs().max()
        return square**0.5 if error <= SAME * self.encoder.abs().max() else None


def _activation_of(sae: SparseAutoencoder) -> tuple[Activation, int | None, Float[Tensor, " n"] | None]:
    """What turns scores into codes, or one sentence that says which coder could."""
    coder = sae.coder
    if isinstance(coder, TopK):
        return ("abstopk" if coder.signed else "topk"), coder.k, None
    if isinstance(coder, MatchingPursuit) and not coder.signed and not coder.tolerance:
        return "matching_pursuit", coder.k, None
    if isinstance(coder, JumpReLU) and not coder.signed:
        return "jumprelu", None, None if sae.thresholds is None else sae.thresholds.detach()
    if isinstance(coder, BatchTopK) and coder.threshold is not None and not coder.signed:
        return "jumprelu", None, torch.full_like(sae.pre_bias.detach()[:1], coder.threshold).expand(sae.n)
    raise ExpanderError(
        f"Other libraries have no coder such as {name_of(coder)}; export with a coder that they have (--coder topk:K, "
        "which `expander eval --coder topk:K` measures first), or train an encoder for it "
        "(`expander train STORE --start RUN --coder topk`)."
    )


def _dictionary_of(
    decoder: Float[Tensor, "n m"], encoder: Float[Tensor, "n m"] | None
) -> tuple[Dictionary, Float[Tensor, "n d"] | None]:
    """A dictionary with these columns, and the values of the encoder on the same support."""
    n, m = decoder.shape
    places = decoder != 0
    places = places if encoder is None else places | (encoder != 0)
    if places.sum() > SPARSE * places.numel():
        return DenseDictionary(m, n, decoder), encoder
    places[~places.any(dim=1), 0] = True  # a column of zeros still needs a coordinate
    d = int(places.sum(dim=1).max())
    rows = places.int().topk(d, dim=1).indices
    there = places.gather(1, rows)
    rows = torch.where(there, rows, m).sort(dim=1).values
    support = Support.from_rows(torch.where(rows < m, rows, NO_ROW).to(torch.int32), m)
    at, inside = rows.clamp(max=m - 1), rows < m
    values = decoder.gather(1, at) * inside
    return ExpanderDictionary(support, values), None if encoder is None else encoder.gather(1, at) * inside
