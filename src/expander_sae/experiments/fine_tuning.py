"""Training once more, from an autoencoder that is there already."""

from __future__ import annotations

from torch import Tensor

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.distribution import current_group
from expander_sae.training import TrainConfig
from expander_sae.training.building import Sample
from expander_sae.training.losses import batch_statistics
from expander_sae.training.sources import open_source
from expander_sae.training.trainee import Trainee


def fine_tuned(sae: SparseAutoencoder, config: TrainConfig, source: Store | Tensor) -> SparseAutoencoder:
    """The same autoencoder after the steps that the config asks for: rates, revival and order of tokens as usual.

    Learned rows would need what the data say of every coordinate, so the config must name a recipe: rows stay.
    """
    group = current_group()
    trainee = Trainee(config, sae, group, Sample.unknown(sae.m, sae.pre_bias.device))
    batches = open_source(source, config, group)
    try:
        while trainee.tokens < config.tokens:
            x = next(batches).to(sae.pre_bias)
            trainee.step(x, batch_statistics(x, group))
    finally:
        batches.close()
    return trainee.finished()
