"""How readable features are: measures of what a feature's firings tell a reader, on held-out text."""

from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.measure import (
    Insertion,
    QualityConfig,
    Scene,
    chance_in,
    quality_in,
    quality_of,
    quality_of_coordinates,
)
from expander_sae.evaluation.quality.results import Quality

__all__ = [
    "HeldOut",
    "Insertion",
    "Quality",
    "QualityConfig",
    "Scene",
    "chance_in",
    "quality_in",
    "quality_of",
    "quality_of_coordinates",
]
