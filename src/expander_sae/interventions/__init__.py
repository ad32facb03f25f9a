"""Dictionaries inside a running model: read, ablate, scale, steer, patch, attribute."""

from expander_sae.interventions.attached import Attached, attach
from expander_sae.interventions.attribution import Attribution, Effect, attribute, logit_difference, text_loss
from expander_sae.interventions.edits import Ablate, Add, Clamp, Edit, Kind, Patch, Scale, edit_in_units
from expander_sae.interventions.steering import NextToken, Steered, steer

__all__ = [
    "Ablate",
    "Add",
    "Attached",
    "Attribution",
    "Clamp",
    "Edit",
    "Effect",
    "Kind",
    "NextToken",
    "Patch",
    "Scale",
    "Steered",
    "attach",
    "attribute",
    "edit_in_units",
    "logit_difference",
    "steer",
    "text_loss",
]
