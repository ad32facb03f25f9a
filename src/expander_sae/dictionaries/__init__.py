"""Dictionaries: the operator `W`, sparse, dense, composed or mixed, and the codes that it is multiplied with."""

from expander_sae.dictionaries.base import Dictionary
from expander_sae.dictionaries.codes import Codes
from expander_sae.dictionaries.composed import ComposedDictionary, columns_in
from expander_sae.dictionaries.dense import DenseDictionary
from expander_sae.dictionaries.expander import ExpanderDictionary
from expander_sae.dictionaries.shard import Shard, shards_of
from expander_sae.dictionaries.union import Union

__all__ = [
    "Codes",
    "ComposedDictionary",
    "DenseDictionary",
    "Dictionary",
    "ExpanderDictionary",
    "Shard",
    "Union",
    "columns_in",
    "shards_of",
]
