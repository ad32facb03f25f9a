"""The feature database: what every feature of a dictionary fires on, how often, with which others, and what it writes.

One pass encodes a text; everything else is read out of the codes, a few thousand features at a time.
"""

from expander_sae.features.collect import FeaturesConfig, collect_all, collect_features
from expander_sae.features.database import DatabaseInfo, FeatureDatabase
from expander_sae.features.source import ReadText, StoredText

__all__ = [
    "DatabaseInfo",
    "FeatureDatabase",
    "FeaturesConfig",
    "ReadText",
    "StoredText",
    "collect_all",
    "collect_features",
]
