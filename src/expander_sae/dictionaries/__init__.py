"""Dictionaries: the operator `W` in its sparse, dense and mixed forms, and the codes it is multiplied with."""

from expander_sae.dictionaries.base import Dictionary
from expander_sae.dictionaries.codes import Codes
from expander_sae.dictionaries.dense import DenseDictionary
from expander_sae.dictionaries.expander import ExpanderDictionary
from expander_sae.dictionaries.union import Union

__all__ = ["Codes", "DenseDictionary", "Dictionary", "ExpanderDictionary", "Union"]
