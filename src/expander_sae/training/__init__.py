"""Training: many dictionaries in one pass over the batches, resumable at any moment."""

from expander_sae.distribution import DeadProcessError, joined
from expander_sae.training.checkpoints import CheckpointError
from expander_sae.training.config import TrainConfig, width_matched
from expander_sae.training.cutting import cut, energies
from expander_sae.training.loop import Run, StoppedError, train
from expander_sae.training.metrics import read_metrics
from expander_sae.training.probing import Probe
from expander_sae.training.sources import BatchSource, TensorBatches

__all__ = [
    "BatchSource",
    "CheckpointError",
    "DeadProcessError",
    "Probe",
    "Run",
    "StoppedError",
    "TensorBatches",
    "TrainConfig",
    "cut",
    "energies",
    "joined",
    "read_metrics",
    "train",
    "width_matched",
]
