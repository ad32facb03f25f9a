"""Sparse autoencoders with expander dictionaries: d learned values per column instead of m."""

from expander_sae import _waiting as _waiting  # before torch
from expander_sae import coders as _coders
from expander_sae import kernels
from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import load_language_model
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.certificates import Certificate, CertifyConfig, certify
from expander_sae.coders import *  # noqa: F403  (what it exports is the list of coders)
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary, Union
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.evaluation import Evaluation, evaluate
from expander_sae.finetuning import FinetuneConfig, finetune
from expander_sae.supports import Support
from expander_sae.training import Run, TrainConfig, train
from expander_sae.version import __version__ as __version__

__all__ = [
    "Certificate",
    "CertifyConfig",
    "Codes",
    "DenseDictionary",
    "Dictionary",
    "Evaluation",
    "ExpanderDictionary",
    "ExpanderError",
    "FinetuneConfig",
    "Run",
    "SparseAutoencoder",
    "StorageError",
    "Store",
    "Support",
    "TextConfig",
    "TrainConfig",
    "Union",
    "certify",
    "evaluate",
    "finetune",
    "harvest",
    "kernels",
    "load_language_model",
    "train",
    *_coders.__all__,
]
