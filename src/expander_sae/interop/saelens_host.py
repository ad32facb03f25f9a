"""Autoencoders of this library as SAELens' own: after this import its `SAE.load_from_disk` knows the architecture.

    import expander_sae.interop.saelens_host
    sae = sae_lens.SAE.load_from_disk(folder)  # that `expander export RUN --to saelens_sparse` wrote

Weights stay sparse. SAELens wants codes as [..., n] and has them so; of `W_enc` and `W_dec` only what a host
reads of them is made. Needs sae-lens 6.44 or newer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders.base import synthesize_dense
from expander_sae.errors import ExpanderError
from expander_sae.interop.saelens_sparse import ARCHITECTURE, TENSOR_FILE, config_of, packed, unpacked
from expander_sae.interop.unformed import UnformedMatrix

try:
    from sae_lens import SAE, SAEConfig, register_sae_class
    from sae_lens.saes.topk_sae import TopK
except ImportError as error:
    raise ExpanderError(
        "This needs SAELens 6.44 or newer, which is not installed here: pip install 'sae-lens>=6.44'."
    ) from error


@dataclass
class ExpanderSAEConfig(SAEConfig):  # type: ignore[misc]  # sae-lens is not there when types are checked
    """What SAELens keeps about an autoencoder of this library."""

    autoencoder: dict[str, Any] = field(default_factory=dict)
    """Our `config.json`."""
    rescale_acts_by_decoder_norm: bool = False
    """Neuronpedia asks before it folds norms; there is nothing to fold."""

    @classmethod
    def architecture(cls) -> str:
        """The name in the registry."""
        return ARCHITECTURE


class ExpanderSAE(SAE[ExpanderSAEConfig]):  # type: ignore[misc]
    """A live autoencoder of this library, in the clothes of SAELens."""

    _live: SparseAutoencoder | None

    @classmethod
    def of(cls, sae: SparseAutoencoder) -> ExpanderSAE:
        """An autoencoder that is in memory, for the tools that take an SAE of SAELens; weights are shared."""
        wrapped = cls(ExpanderSAEConfig.from_dict(config_of(sae, {})))
        wrapped._live = sae
        return wrapped.to(device=sae.pre_bias.device, dtype=sae.pre_bias.dtype)

    @property
    def autoencoder(self) -> SparseAutoencoder:
        """The autoencoder itself, with sparse codes and everything else."""
        if self._live is None:
            raise ExpanderError(
                "An expander SAE is made from a folder, by SAE.load_from_disk, or by ExpanderSAE.of; it has no weights "
                "of its own to begin with."
            )
        return self._live

    def initialize_weights(self) -> None:
        """Nothing: the weights are those of the autoencoder, which comes with the folder."""
        self._live = None

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """Make the autoencoder from the bytes, and hand SAELens its tensors instead."""
        if TENSOR_FILE in state_dict:
            self._live = unpacked(self.cfg.autoencoder, state_dict.pop(TENSOR_FILE))
            state_dict.update({f"_live.{name}": tensor for name, tensor in self._live.state_dict().items()})

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """The bytes in place of the tensors; the config is written after them."""
        state_dict.clear()
        self.cfg.autoencoder, state_dict[TENSOR_FILE] = packed(self.autoencoder)

    def encode(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """The codes of every token, all n of them."""
        x = self.hook_sae_input(self.reshape_fn_in(x.to(self.dtype)))
        codes = self.autoencoder.encode(x).to_dense()
        return self.hook_sae_acts_post(self.hook_sae_acts_pre(codes))

    def decode(self, feature_acts: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """The activations that codes stand for, at the price of the nonzero ones."""
        sae = self.autoencoder
        flat = feature_acts.reshape(-1, sae.n)
        total = (synthesize_dense(sae.dictionary, flat) + sae.pre_bias) / sae.scale if len(flat) else flat[:, : sae.m]
        found = total.reshape(*feature_acts.shape[:-1], sae.m).to(self.dtype)
        return self.reshape_fn_out(self.hook_sae_recons(found), self.d_head)

    def get_activation_fn(self) -> Callable[[Tensor], Tensor]:
        """Never called; that it is a TopK tells SAEDashboard not to cut the weights into pieces."""
        return TopK(1)

    def fold_W_dec_norm(self) -> None:
        """Nothing: the norms of columns are part of what the coder does."""

    @property
    def W_dec(self) -> Float[Tensor, "n m"]:
        """The columns, of which what is read is made."""
        sae = self.autoencoder
        return UnformedMatrix(sae.dictionary, 1 / float(sae.scale), self.dtype, self.device, as_rows=True)

    @property
    def W_enc(self) -> Float[Tensor, "m n"]:
        """What scores are read off, of which what is read is made."""
        sae = self.autoencoder
        return UnformedMatrix(sae.encoder, float(sae.scale), self.dtype, self.device, as_rows=False)

    @property
    def b_enc(self) -> Float[Tensor, " n"]:
        """The bias of every feature, zero without one."""
        bias = self.autoencoder.latent_bias
        return torch.zeros(self.cfg.d_sae, dtype=self.dtype, device=self.device) if bias is None else bias

    @property
    def b_dec(self) -> Float[Tensor, " m"]:
        """What every reconstruction has, at the scale of the input."""
        return (self.autoencoder.pre_bias / self.autoencoder.scale).to(self.dtype)


register_sae_class(ARCHITECTURE, ExpanderSAE, ExpanderSAEConfig)
