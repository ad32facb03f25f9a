"""Training: many dictionaries in one pass over the batches, resumable at any moment."""

from expander_sae.distribution import DeadProcessError, joined
from expander_sae.training.alphabets import rows_of_largest
from expander_sae.training.checkpoints import CheckpointError, has_checkpoint
from expander_sae.training.config import TrainConfig, width_matched
from expander_sae.training.cutting import compressing, cut, energies
from expander_sae.training.dead_features import FiringRecord
from expander_sae.training.engine import Learner, Probe, learn
from expander_sae.training.growing import check_growable, grow
from expander_sae.training.learner import Trainee
from expander_sae.training.losses import batch_statistics, fvu
from expander_sae.training.metrics import Mean, Numbers, read_metrics
from expander_sae.training.rows import high_loss_tokens
from expander_sae.training.run import Run, train
from expander_sae.training.sources import BatchSource, TensorBatches, open_source
from expander_sae.training.start import Sample, new_autoencoder

__all__ = [
    "BatchSource",
    "CheckpointError",
    "DeadProcessError",
    "FiringRecord",
    "Learner",
    "Mean",
    "Numbers",
    "Probe",
    "Run",
    "Sample",
    "TensorBatches",
    "TrainConfig",
    "Trainee",
    "batch_statistics",
    "check_growable",
    "compressing",
    "cut",
    "energies",
    "fvu",
    "grow",
    "has_checkpoint",
    "high_loss_tokens",
    "joined",
    "learn",
    "new_autoencoder",
    "open_source",
    "read_metrics",
    "rows_of_largest",
    "train",
    "width_matched",
]
