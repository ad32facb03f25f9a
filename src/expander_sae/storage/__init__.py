"""Autoencoders on disk: a folder with a readable config.json and one safetensors file; nothing else touches the format.

Replacing an autoencoder is atomic, loading checks everything, and there are no pickles.
"""

from expander_sae.storage.compression import Compression, compress
from expander_sae.storage.description import Description, describe, stored_supports
from expander_sae.storage.loading import load
from expander_sae.storage.saving import save

__all__ = ["Compression", "Description", "compress", "describe", "load", "save", "stored_supports"]
