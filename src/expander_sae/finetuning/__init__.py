"""Fine-tuning: a trained dictionary learns what the language model's own predictions need of it."""

from expander_sae.finetuning.learner import FinetuneConfig, FinetuneRun, finetune

__all__ = ["FinetuneConfig", "FinetuneRun", "finetune"]
