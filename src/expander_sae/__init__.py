"""Sparse autoencoders with expander dictionaries: d learned values per column instead of m."""

from expander_sae import coders as _coders
from expander_sae import kernels
from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import load_language_model
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import *  # noqa: F403  (its __all__ = [  # noqa: PLE0604
    "Codes",
    "DenseDictionary",
    "Dictionary",
    "ExpanderDictionary",
    "ExpanderError",
    "Run",
    "SparseAutoencoder",
    "StorageError",
    "Store",
    "Support",
    "TextConfig",
    "TrainConfig",
    "Union",
    "harvest",
    "kernels",
    "load_language_model",
    "train",
    *_coders.__all__,
]
