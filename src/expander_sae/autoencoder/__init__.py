"""Sparse autoencoders, and their folders on disk: a readable config.json and one safetensors file.

Nothing else touches the format. Replacing an autoencoder is atomic, loading checks everything, there are no pickles.
"""

from expander_sae.autoencoder.config import Quantised
from expander_sae.autoencoder.description import Compression, Description, compress, describe, stored_supports
from expander_sae.autoencoder.folder import is_autoencoder
from expander_sae.autoencoder.model import SparseAutoencoder

__all__ = [
    "Compression",
    "Description",
    "Quantised",
    "SparseAutoencoder",
    "compress",
    "describe",
    "is_autoencoder",
    "stored_supports",
]
