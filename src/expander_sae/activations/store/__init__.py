"""Activations on disk: a folder of shards that a harvest fills and resumes, and that training reads without the model.

Several hookpoints of one harvest are sibling folders, one store each.
"""

from expander_sae.activations.store.batches import Batches
from expander_sae.activations.store.manifest import Norms
from expander_sae.activations.store.reader import Store
from expander_sae.activations.store.shards import Float16Overflow, StoreError, Tokens, bytes_needed, check_disk
from expander_sae.activations.store.writer import ResumePoint, StoreWriter

__all__ = [
    "Batches",
    "Float16Overflow",
    "Norms",
    "ResumePoint",
    "Store",
    "StoreError",
    "StoreWriter",
    "Tokens",
    "bytes_needed",
    "check_disk",
]
