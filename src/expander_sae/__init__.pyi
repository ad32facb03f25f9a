# The public names of the library and the rooms they come from: read by type checkers, editors and `__init__.py`.
from . import kernels as kernels
from .activations.harvest import TextConfig, harvest
from .activations.models import load_language_model
from .activations.store import Store
from .autoencoder import SparseAutoencoder
from .certificates import Certificate, CertifyConfig, certify
from .coders import (
    FISTA,
    HTP,
    NIHT,
    OMP,
    SSMP,
    BasisPursuit,
    BatchTopK,
    Candidates,
    Coder,
    CoordinateDescent,
    MatchingPursuit,
    OneShotCoder,
    TopK,
    VotingDecoder,
)
from .dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary, Union
from .errors import ExpanderError, StorageError
from .evaluation import Evaluation, evaluate
from .finetuning import FinetuneConfig, finetune
from .supports import Support
from .training import Run, TrainConfig, train

__version__: str

__all__ = [
    "FISTA",
    "HTP",
    "NIHT",
    "OMP",
    "SSMP",
    "BasisPursuit",
    "BatchTopK",
    "Candidates",
    "Certificate",
    "CertifyConfig",
    "Coder",
    "Codes",
    "CoordinateDescent",
    "DenseDictionary",
    "Dictionary",
    "Evaluation",
    "ExpanderDictionary",
    "ExpanderError",
    "FinetuneConfig",
    "MatchingPursuit",
    "OneShotCoder",
    "Run",
    "SparseAutoencoder",
    "StorageError",
    "Store",
    "Support",
    "TextConfig",
    "TopK",
    "TrainConfig",
    "Union",
    "VotingDecoder",
    "certify",
    "evaluate",
    "finetune",
    "harvest",
    "kernels",
    "load_language_model",
    "train",
]
