"""`expander pull`: an autoencoder from the Hugging Face hub."""

from dataclasses import dataclass

import tyro

from expander_sae.checks import AutoencoderFolder
from expander_sae.console import terminal, waiting
from expander_sae.errors import ExpanderError
from expander_sae.interop.hub import from_pretrained


@dataclass(frozen=True)
class Pull:
    """Get an autoencoder from a repository of the Hugging Face hub, as a folder that every command takes."""

    repository: tyro.conf.Positional[str]
    """The repository, as owner/name."""
    folder: tyro.conf.Positional[str]
    """The folder in it, such as layers.12; the page of the repository lists them."""
    out: AutoencoderFolder
    """The folder to write, which must not exist yet."""
    revision: str | None = None
    """A commit, for the same numbers for ever; a tag or a branch; by default the newest."""

    def run(self) -> None:
        """Fetch, check, write, and say at which commit it is."""
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ExpanderError(f"{self.out} exists and is not empty; choose another path or delete it first.")
        with waiting(f"fetching {self.folder} of {self.repository}"):
            sae = from_pretrained(self.repository, self.folder, revision=self.revision)
        sae.save(self.out)
        commit = sae.provenance["hub"]["revision"]
        terminal().print(f"Commit {commit} of {self.repository}, written to {self.out}.", soft_wrap=True)
