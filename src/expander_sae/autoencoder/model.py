"""The sparse autoencoder: a dictionary, a coder, biases and a scale."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.autoencoder.config import (
    Config,
    Quantised,
    check_dtype,
    check_quantised,
    dtype_name,
    encoder_name,
)
from expander_sae.autoencoder.dictionaries import record_of
from expander_sae.autoencoder.tensors import convert, read, write
from expander_sae.coders import OMP, BatchTopK, Candidates, Coder, JumpReLU, MatchingPursuit, OneShotCoder, TopK
from expander_sae.dictionaries import Codes, Dictionary, ExpanderDictionary
from expander_sae.dictionaries.base import flatten
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.kernels import square_norm
from expander_sae.kernels.inputs import check_finite

if TYPE_CHECKING:
    from expander_sae.interventions import Attached


class Residual(NamedTuple):
    """What codes leave of some activations."""

    codes: Codes
    left: Float[Tensor, "*batch m"]
    """What they do not explain, scaled and centred."""
    squares: Float[Tensor, ""]
    """The sum of its squares."""


class SparseAutoencoder(nn.Module):
    """Writes activations as `W codes + pre_bias`, on activations scaled to a mean norm of sqrt(m).

    A one-shot coder (TopK, BatchTopK) reads codes off the encoder: the dictionary itself when `tied`, else a second set
    of values on the same support, plus the latent bias if there is one; JumpReLU reads the thresholds too. Candidates
    reads off the encoder which features may fire and fits them to the dictionary. Any other coder works on the
    dictionary alone.
    """

    pre_bias: nn.Parameter
    latent_bias: nn.Parameter | None
    thresholds: nn.Parameter | None
    scale: Tensor

    def __init__(
        self,
        dictionary: Dictionary,
        coder: Coder,
        *,
        tied: bool = True,
        latent_bias: bool = False,
        thresholds: bool = False,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.dictionary, self.coder = dictionary, coder
        self.untied_encoder = None if tied else dictionary.encoder_of_its_own()
        device, dtype = dictionary.device, dictionary.dtype
        self.pre_bias = nn.Parameter(torch.zeros(dictionary.m, device=device, dtype=dtype))
        for name, wanted in (("latent_bias", latent_bias), ("thresholds", thresholds)):
            zeros = torch.zeros(dictionary.n, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, None if zeros is None else nn.Parameter(zeros))
        self.register_buffer("scale", torch.ones((), device=device))
        self.provenance: dict[str, Any] = dict(provenance or {})
        """Where it comes from (model, hookpoint, text, tokens, metrics, ...); kept in the file."""

    @property
    def learned_values(self) -> int:
        """How many learned numbers there are: dictionary, encoder if it has its own, and biases."""
        values = self.dictionary.learned_values
        if self.untied_encoder is not None:
            shared = set(self.dictionary.parameters()) & set(self.untied_encoder.parameters())
            values += self.untied_encoder.learned_values - sum(parameter.numel() for parameter in shared)
        biases = [self.pre_bias, self.latent_bias, self.thresholds]
        return values + sum(bias.numel() for bias in biases if bias is not None)

    @property
    def m(self) -> int:
        """Width of an activation."""
        return self.dictionary.m

    @property
    def n(self) -> int:
        """Number of features."""
        return self.dictionary.n

    @property
    def tied(self) -> bool:
        """Whether the encoder is the dictionary itself."""
        return self.untied_encoder is None

    @property
    def encoder(self) -> Dictionary:
        """What one-shot coders read codes off."""
        return self.dictionary if self.untied_encoder is None else self.untied_encoder

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As for every module (`to`, `cuda`, `half`, ...), but the scale stays float32: half would be off by 1/1000."""
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale = scale.to(self.scale.device)
        return self

    @torch.no_grad()
    def fit_scale(self, x: Float[Tensor, "*batch m"]) -> float:
        """Choose the scale that gives these activations a mean norm of sqrt(m); returns it."""
        flat = flatten(x, self.m)
        check_finite("x", flat)
        mean = float(torch.linalg.vector_norm(flat.float(), dim=1).mean()) if len(flat) else 0.0
        if mean == 0:
            raise ExpanderError("The scale needs at least one activation that is not zero.")
        self.scale.fill_(math.sqrt(self.m) / mean)
        return float(self.scale)

    def encode(self, x: Float[Tensor, "*batch m"]) -> Codes:
        """The codes of every token."""
        return self._encode(self._centre(x))

    def _centre(self, x: Float[Tensor, "*batch m"], shift: Tensor | None = None) -> Float[Tensor, "*batch m"]:
        """x at the dictionary's scale less the bias, or what is given in its place."""
        flatten(x, self.m)
        shift = self.pre_bias if shift is None else shift
        return torch.addcmul(-shift, x.to(torch.promote_types(x.dtype, shift.dtype)), self.scale)

    def _encode(self, centred: Float[Tensor, "*batch m"]) -> Codes:
        if isinstance(self.coder, Candidates):
            return self.coder(self.dictionary, centred, self.latent_bias, self.encoder)
        if isinstance(self.coder, JumpReLU):
            return self.coder(self.encoder, centred, self.latent_bias, self.thresholds)
        if isinstance(self.coder, OneShotCoder):
            return self.coder(self.encoder, centred, self.latent_bias)
        return self.coder(self.dictionary, centred)

    def decode(self, codes: Codes) -> Float[Tensor, "*batch m"]:
        """The activations that codes stand for, at the scale of the input."""
        if codes.n != self.dictionary.coded:
            raise ExpanderError(
                f"These codes are for {codes.n} features, this autoencoder has {self.dictionary.coded}."
            )
        return (self.dictionary.synthesize(codes) + self.pre_bias) / self.scale

    def forward(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """The reconstruction of every token, in the dtype of x."""
        return self.decode(self.encode(x)).to(x.dtype)

    def residual(self, x: Float[Tensor, "*batch m"]) -> Residual:
        """The codes, and what they leave unexplained of the scaled activations: what training makes small.

        Passes over [batch, m] fewer times than comparing x with `forward(x)`, and fewest where gradients are those of
        the sum of squares.
        """
        dictionary, encoder = self.dictionary, self.encoder
        one_shot, pursued = isinstance(self.coder, TopK | BatchTopK), isinstance(self.coder, MatchingPursuit | OMP)
        if (one_shot or pursued) and type(dictionary) is type(encoder) is ExpanderDictionary:
            centred = self._centre(x, self.pre_bias.detach())
            with torch.no_grad():
                codes = self._encode(centred)
            reading, bias = (encoder, self.latent_bias) if one_shot else (None, None)
            return Residual(*dictionary.explain(centred, codes, reading, bias, self.pre_bias))
        centred = self._centre(x)
        codes = self._encode(centred)
        left = dictionary.synthesize(Codes(-codes.values, codes.indices, codes.n), centred)
        return Residual(codes, left, square_norm(left))

    def with_coder(self, coder: Coder) -> SparseAutoencoder:
        """The same weights, not copied, under another coder."""
        other = copy.copy(self)
        other._modules, other._parameters = dict(self._modules), dict(self._parameters)
        other._buffers, other.provenance = dict(self._buffers), dict(self.provenance)
        other.coder = coder
        return other

    def attach(self, model: Any, hookpoint: str, **settings: Any) -> Attached:
        """This dictionary in a running model, for a `with`: inside, its codes are read and changed at every pass.

        The model is one of Hugging Face's, or what `load_language_model` gives; the hookpoint is the name of a module,
        such as `layers.12`. Settings are those of `expander_sae.attach`, which takes several dictionaries at once, but
        for `edits`, which are a list here.
        """
        # The only import upwards: what is done with an autoencoder is looked for at the autoencoder.
        from expander_sae.interventions import attach

        edits = settings.pop("edits", ())
        return attach(model, {hookpoint: self}, edits={hookpoint: edits}, **settings)

    def save(
        self, path: str | PathLike[str], *, dtype: torch.dtype | None = None, values: Quantised | None = None
    ) -> None:
        """Write the folder `path` (config.json and a safetensors file), replacing an autoencoder that is there.

        `values` keeps dictionary and encoder in 8 or 4 bits per value; what else there is in `dtype`, then float16.
        """
        learned = self._learned()
        if dtype is None:
            dtype = _dtype_of(learned) if values is None else torch.float16
        check_dtype(dtype)
        if values is not None:
            check_quantised(values)
        record = record_of(self.dictionary)
        if self.untied_encoder is not None and record_of(self.untied_encoder) != record:
            raise StorageError(
                "The encoder has another support than the dictionary, which a file cannot say; give both the same one."
            )
        config = Config(
            record,
            self.coder,
            tied=self.tied,
            latent_bias=self.latent_bias is not None,
            thresholds=self.thresholds is not None,
            scale=float(self.scale),
            dtype=dtype,
            values=values or dtype_name(dtype),
            provenance=self.provenance,
        )
        blocks = self.dictionary.named_modules(remove_duplicate=False)
        supports = {
            f"{prefix}.rows".removeprefix("."): block.support
            for prefix, block in blocks
            if isinstance(block, ExpanderDictionary)
        }
        write(Path(path), config, learned, supports)

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """The autoencoder in the folder `path`, checked; in float32 (float64 if stored so) unless `dtype` differs."""
        stored = read(Path(path))
        config = stored.config
        dtype = dtype or (torch.float64 if config.dtype == torch.float64 else torch.float32)
        check_dtype(dtype)
        learned = {each.name: convert(each.name, stored.tensors[each.name], dtype, device) for each in config.learned()}
        sae = cls(
            config.dictionary.build(stored.tensors | learned),
            config.coder,
            tied=config.tied,
            latent_bias=config.latent_bias,
            thresholds=config.thresholds,
            provenance=config.provenance,
        )
        with torch.no_grad():
            for name, parameter in sae._learned().items():
                parameter.copy_(learned[name])
            sae.scale.fill_(config.scale)
        return sae

    def _learned(self) -> dict[str, Tensor]:
        """Every learned tensor by the name it has in the file."""
        learned: dict[str, Tensor] = dict(self.dictionary.named_parameters(remove_duplicate=False))
        if self.untied_encoder is not None:
            for name, tensor in self.untied_encoder.named_parameters(remove_duplicate=False):
                if tensor is not learned.get(name):  # atoms are the dictionary's
                    learned[encoder_name(name)] = tensor
        learned["pre_bias"] = self.pre_bias
        for name, bias in (("latent_bias", self.latent_bias), ("thresholds", self.thresholds)):
            if bias is not None:
                learned[name] = bias
        named = {id(tensor) for tensor in learned.values()}
        others = [name for name, tensor in self.named_parameters() if id(tensor) not in named]
        if others:
            raise StorageError(
                f"A file has no place for the parameters {', '.join(others)}; remove them before saving."
            )
        return learned

    def extra_repr(self) -> str:
        return f"coder={self.coder}, scale={float(self.scale):.4g}"


def _dtype_of(learned: Mapping[str, Tensor]) -> torch.dtype:
    """The one dtype of these tensors."""
    dtypes = {tensor.dtype for tensor in learned.values()}
    if len(dtypes) > 1:
        names = ", ".join(sorted(map(dtype_name, dtypes)))
        raise StorageError(f"The parameters are of several dtypes ({names}); choose one, such as dtype=torch.float32.")
    return dtypes.pop()
