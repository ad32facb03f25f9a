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
    JumpReLU,
    MatchingPursuit,
    OneShotCoder,
    TopK,
    VotingDecoder,
)
from .dictionaries import Codes, ComposedDictionary, DenseDictionary, Dictionary, ExpanderDictionary, Union
from .errors import ExpanderError, StorageError
from .evaluation import Evaluation, evaluate
from .features import FeatureDatabase, FeaturesConfig, collect_features
from .finetuning import FinetuneConfig, finetune
from .interop.formats import export_to, import_from
from .interop.hub import from_pretrained, push_to_hub
from .interventions import (
    Ablate,
    Add,
    Attribution,
    Clamp,
    Patch,
    Scale,
    Steered,
    attach,
    attribute,
    logit_difference,
    steer,
    text_loss,
)
from .supports import Support
from .training import Run, TrainConfig, train

__version__: str

__all__ = [
    "FISTA",
    "HTP",
    "NIHT",
    "OMP",
    "SSMP",
    "Ablate",
    "Add",
    "Attribution",
    "BasisPursuit",
    "BatchTopK",
    "Candidates",
    "Certificate",
    "CertifyConfig",
    "Clamp",
    "Coder",
    "Codes",
    "ComposedDictionary",
    "CoordinateDescent",
    "DenseDictionary",
    "Dictionary",
    "Evaluation",
    "ExpanderDictionary",
    "ExpanderError",
    "FeatureDatabase",
    "FeaturesConfig",
    "FinetuneConfig",
    "JumpReLU",
    "MatchingPursuit",
    "OneShotCoder",
    "Patch",
    "Run",
    "Scale",
    "SparseAutoencoder",
    "Steered",
    "StorageError",
    "Store",
    "Support",
    "TextConfig",
    "TopK",
    "TrainConfig",
    "Union",
    "VotingDecoder",
    "attach",
    "attribute",
    "certify",
    "collect_features",
    "evaluate",
    "export_to",
    "finetune",
    "from_pretrained",
    "harvest",
    "import_from",
    "kernels",
    "load_language_model",
    "logit_difference",
    "push_to_hub",
    "steer",
    "text_loss",
    "train",
]
