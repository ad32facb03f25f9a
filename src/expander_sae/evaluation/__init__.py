"""Evaluation: how close reconstructions are, what a language model loses by them, and how sure that is."""

from expander_sae.evaluation.autoencoders import default_reference, load_runs, run_folders
from expander_sae.evaluation.language_model import evaluate
from expander_sae.evaluation.probe import LossProbe
from expander_sae.evaluation.results import DENSITY_EDGES, Evaluation, Interval, Kind, LanguageModelLoss
from expander_sae.evaluation.setting import text_for, trained_with
from expander_sae.evaluation.stored_activations import evaluate_activations

__all__ = [
    "DENSITY_EDGES",
    "Evaluation",
    "Interval",
    "Kind",
    "LanguageModelLoss",
    "LossProbe",
    "default_reference",
    "evaluate",
    "evaluate_activations",
    "load_runs",
    "run_folders",
    "text_for",
    "trained_with",
]
