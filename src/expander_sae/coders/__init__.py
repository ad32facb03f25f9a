"""Coders: how codes are found, given a dictionary."""

from expander_sae.coders.base import Coder, OneShotCoder
from expander_sae.coders.basis_pursuit import BasisPursuit
from expander_sae.coders.candidates import Candidates
from expander_sae.coders.coordinate_descent import CoordinateDescent
from expander_sae.coders.fista import FISTA
from expander_sae.coders.jumprelu import JumpReLU
from expander_sae.coders.pursuit import OMP, MatchingPursuit
from expander_sae.coders.ssmp import SSMP
from expander_sae.coders.thresholding import HTP, NIHT
from expander_sae.coders.topk import BatchTopK, TopK
from expander_sae.coders.voting import VotingDecoder

__all__ = [
    "FISTA",
    "HTP",
    "NIHT",
    "OMP",
    "SSMP",
    "BasisPursuit",
    "BatchTopK",
    "Candidates",
    "Coder",
    "CoordinateDescent",
    "JumpReLU",
    "MatchingPursuit",
    "OneShotCoder",
    "TopK",
    "VotingDecoder",
]
