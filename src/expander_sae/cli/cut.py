"""`expander cut`: a dictionary of fewer values out of a larger one, without training."""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import AutoencoderFolder, Count
from expander_sae.cli.inputs import store_for, usual_tokens
from expander_sae.console import terminal
from expander_sae.training import cut, energies

BATCH = 2048
"""Tokens coded at a time."""


@dataclass(frozen=True)
class Cut:
    """Cut a dictionary down to fewer values per column: one training with large d serves every smaller one.

    Which values explain most is read off the codes of some activations. `expander train --start` improves what is left.
    """

    path: tyro.conf.Positional[Path]
    """The folder of the autoencoder, which stays as it is."""
    store: tyro.conf.Positional[Path]
    """The folder of a store of activations, such as the one it was trained on."""
    out: AutoencoderFolder
    """The folder of the smaller one."""
    d: Count
    """Learned values per column, on average; of mixtures, atoms per column: the atoms themselves stay."""
    tokens: Count = 16_384
    """Activations to code, from the start of the store."""

    def run(self) -> None:
        """Cut, write, and say how many values are left."""
        sae = SparseAutoencoder.load(self.path)
        usual = usual_tokens(store_for(self.store, sae), self.tokens)
        smaller = cut(sae, self.d, energies(sae, list(torch.split(usual, BATCH))))
        smaller.save(self.out)
        console = terminal()
        left, before = smaller.dictionary.learned_values, sae.dictionary.learned_values
        console.print(f"{left:,} of {before:,} values are left, {self.d} per column on average.")
        console.print(f"Written to {self.out}.")
