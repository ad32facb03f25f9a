"""Dictionaries inside a running model: read, ablate, scale, steer, patch, attribute."""

from expander_sae.interventions.attached import Attached, attach
from expander_sae.interventions.attribution import Attribution, Effect, attribute, logit_difference, text_loss
from expander_sae.interventions.edits import Ablate, Add, Clamp, Edit, Patch, Scale
from expander_sae.interventions.steering import NextToken, Steered, steer

__all__ = [
    "Ablate",
    "Add",
    "Attached",
    "Attribution",
    "Clamp",
    "Edit",
    "Effect",
    "NextToken",
    "Patch",
    "Scale",
    "Steered",
    "attach",
    "attribute",
    "logit_difference",
    "steer",
    "text_loss",
]
