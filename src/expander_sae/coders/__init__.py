"""Coders: how codes are found, given a dictionary."""

from expander_sae.coders.base import Coder, OneShotCoder
from expander_sae.coders.matching_pursuit import MatchingPursuit
from expander_sae.coders.omp import OMP
from expander_sae.coders.topk import TopK

__all__ = ["OMP", "Coder", "MatchingPursuit", "OneShotCoder", "TopK"]
