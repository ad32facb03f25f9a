"""`expander import`: an autoencoder out of another library's folder."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from expander_sae.autoencoder import describe
from expander_sae.checks import AutoencoderFolder, Count
from expander_sae.console import terminal
from expander_sae.errors import ExpanderError
from expander_sae.interop.formats import import_from


@dataclass(frozen=True)
class Import:
    """Make an autoencoder of this library out of a folder of SAELens, sparsify or dictionary_learning, or a .pt file.

    What it loads gives the same codes and reconstructions. Every command takes the result: eval, quality, features,
    cut, compress, ...
    """

    path: tyro.conf.Positional[Path]
    """The folder or file, which stays as it is."""
    out: AutoencoderFolder
    """The folder to write, which must not exist yet."""
    k: Count | None = None
    """Features per token, for a file that does not say it."""

    def run(self) -> None:
        """Read, write, and say what it is."""
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ExpanderError(f"{self.out} exists and is not empty; choose another path or delete it first.")
        import_from(self.path, self.k).save(self.out)
        found = describe(self.out)
        terminal().print(
            f"{found.n:,} features for activations of width {found.m:,}, {found.dictionary['kind']}, under "
            f"{found.coder['name']}. Written to {self.out}.",
            soft_wrap=True,
        )
