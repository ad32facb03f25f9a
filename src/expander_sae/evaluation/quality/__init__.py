"""How readable features are: measures of what a feature's firings tell a reader, on held-out text."""

from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.measure import Quality, Readings, chance_of, quality_of, quality_of_coordinates

__all__ = ["HeldOut", "Quality", "Readings", "chance_of", "quality_of", "quality_of_coordinates"]
