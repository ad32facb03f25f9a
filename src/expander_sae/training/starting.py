"""The autoencoder that training starts from when that is another run's: its rows, its values, its biases."""

from __future__ import annotations

import torch

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OneShotCoder
from expander_sae.dictionaries import DenseDictionary, Dictionary
from expander_sae.errors import ExpanderError
from expander_sae.training.config import TrainConfig


def started(config: TrainConfig, width: int, device: torch.device) -> tuple[SparseAutoencoder, bool]:
    """What the folder `config.start` holds, with the coder and the encoder that the config asks for.

    An encoder of its own starts from that of the other run, a latent bias too; where there is none, from the columns
    and from zero. Also gives back whether a one-shot coder will now read columns that a pursuit was trained with.
    """
    assert config.start is not None
    before = SparseAutoencoder.load(config.start, device=device)
    _check(config, before.dictionary, width)
    sae = SparseAutoencoder(
        before.dictionary,
        config.make_coder(),
        tied=config.tied,
        latent_bias=config.has_latent_bias,
    ).to(torch.float64 if config.precision == "float64" else torch.float32)
    with torch.no_grad():
        sae.scale.copy_(before.scale)
        sae.pre_bias.copy_(before.pre_bias)
        if sae.untied_encoder is not None:
            sae.untied_encoder.get_parameter("values").copy_(before.encoder.get_parameter("values"))
        if sae.latent_bias is not None and before.latent_bias is not None:
            sae.latent_bias.copy_(before.latent_bias)
    return sae, config.one_shot and not isinstance(before.coder, OneShotCoder)


def _check(config: TrainConfig, dictionary: Dictionary, width: int) -> None:
    """Refuse a start of other sizes."""
    dense = isinstance(dictionary, DenseDictionary)
    wanted = config.n * (width if config.d is None else config.d)
    sizes = (dictionary.m, dictionary.n, dictionary.learned_values)
    if sizes != (width, config.n, wanted) or dense != (config.d is None):
        per_column = "dense" if dense else f"d={dictionary.learned_values / dictionary.n:g}"
        raise ExpanderError(
            f"{config.start} has n={dictionary.n} columns of width {dictionary.m}, {per_column}; training from it "
            f"needs the same, not n={config.n} of width {width}, {'dense' if config.d is None else f'd={config.d}'}."
        )
