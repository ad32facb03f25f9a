"""Features in shards: which runs can be had so, and how the shards become one autoencoder again."""

from __future__ import annotations

import torch

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Shard, shards_of
from expander_sae.errors import ExpanderError
from expander_sae.training.config import TrainConfig
from expander_sae.training.start import recipe_of


def check_shards(config: TrainConfig, shards: int) -> None:
    """Refuse features in shards where they do not divide, or where codes are found in more than one look."""
    if shards == 1:
        return
    if config.n % shards:
        raise ExpanderError(f"{config.n} features cannot lie in {shards} shards of one size; choose a multiple of it.")
    elsewhere = any(each is not None for each in (config.start, config.columns_from, config.look))
    if config.d is None or config.composed or elsewhere or config.coding != "topk":
        raise ExpanderError(
            f"Feature shards are for an expander dictionary of coordinates under coder topk, from no other start, all "
            f"looked at, not for {config.name}; give d and --coder topk, and leave atoms, start, columns_from and look "
            "off."
        )


@torch.no_grad()
def assembled(sae: SparseAutoencoder, config: TrainConfig) -> SparseAutoencoder | None:
    """The autoencoder in one piece, in the memory of the first process; None in the others, all of which call this."""
    dictionary, encoder, shards = sae.dictionary, sae.untied_encoder, shards_of(sae.dictionary)
    if not isinstance(dictionary, Shard):
        return sae
    recipe = None if config.learns_rows else recipe_of(config, sae.m)
    whole = dictionary.assembled(recipe)
    encoding = None if encoder is None else shards.collected(encoder.get_parameter("values"))
    bias = None if sae.latent_bias is None else shards.collected(sae.latent_bias)
    if whole is None:
        return None
    result = SparseAutoencoder(whole, sae.coder, tied=sae.tied, latent_bias=bias is not None, provenance=sae.provenance)
    result.pre_bias.copy_(sae.pre_bias)
    result.scale.copy_(sae.scale)
    if result.latent_bias is not None and bias is not None:
        result.latent_bias.copy_(bias)
    if result.untied_encoder is not None and encoding is not None:
        result.untied_encoder.get_parameter("values").copy_(encoding)
    return result
