"""`expander export`: an autoencoder as another library's folder."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from expander_sae.checks import ForeignFolder
from expander_sae.cli.inputs import autoencoder_in, coder_asked_for
from expander_sae.console import terminal
from expander_sae.interop.formats import Format, export_bytes, export_to


@dataclass(frozen=True)
class Export:
    """Write an autoencoder as a folder that SAELens, sparsify or dictionary_learning loads, with the same codes.

    They hold every dictionary in full, so the folder is as large as a dense one. Codes of a pursuit exist in none of
    them but SAELens's matching pursuit: choose another coder for those, or saelens_sparse, which stays as small as it
    is, under any coder, and which SAELens loads after `import expander_sae.interop.saelens_host`. Tokens with massive
    activations pass through an attached autoencoder of this library unchanged; others reconstruct them badly.
    """

    run_folder: tyro.conf.Positional[Path]
    """The folder of the autoencoder, which stays as it is."""
    to: Format
    """The library that is to load it."""
    out: ForeignFolder
    """The folder to write, which must not exist yet."""
    coder: str | None = None
    """Another coder, such as topk:32; what that costs is what `expander eval --coder` says."""
    signed: bool = False
    """Allow negative codes."""

    def run(self) -> None:
        """Say how large it will be, then write."""
        sae, coder = autoencoder_in(self.run_folder), coder_asked_for(self.coder, self.signed)
        if coder is not None:
            sae = sae.with_coder(coder)
        console = terminal()
        console.print(f"The folder for {self.to} will take {export_bytes(sae, self.to) / 2**20:,.1f} MiB.")
        console.print(f"Written to {export_to(sae, self.to, self.out)}.", soft_wrap=True)
