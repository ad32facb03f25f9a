"""Sparse autoencoders with expander dictionaries: d learned values per column instead of m."""

from expander_sae import coders as _coders
from expander_sae import kernels
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import *  # noqa: F403  (its __all__ is the list of coders)
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary, Union
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.supports import Support

__version__ = "0.1.0"

__all__ = [
    "Codes",
    "DenseDictionary",
    "Dictionary",
    "ExpanderDictionary",
    "ExpanderError",
    "SparseAutoencoder",
    "StorageError",
    "Support",
    "Union",
    "kernels",
    *_coders.__all__,
]
