"""Training once more, from an autoencoder that is there already."""

from __future__ import annotations

from torch import Tensor

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.training import TrainConfig, Trainee, learn, open_source


def fine_tuned(sae: SparseAutoencoder, config: TrainConfig, source: Store | Tensor) -> SparseAutoencoder:
    """What the autoencoder becomes by the steps that the config asks for: rates, revival and order of tokens as usual.

    Learned rows would need what the data say of every coordinate, so the config must name a recipe: rows stay.
    """
    trainee = Trainee(config, sae)
    with open_source(source, config) as batches:
        learn(trainee, batches, config.tokens)
    return trainee.finished()
