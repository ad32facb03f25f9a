"""`expander push`: autoencoders, or a dashboard, to the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from expander_sae.console import terminal, waiting
from expander_sae.errors import ExpanderError
from expander_sae.interop.hub import Published, by_hookpoint, push_dashboard, push_to_hub
from expander_sae.reporting.dashboard.writing import MARK


@dataclass(frozen=True)
class Push:
    """Upload autoencoders to a repository of the Hugging Face hub, or a dashboard, which becomes a page there.

    A repository holds several autoencoders of a model, a folder for each hookpoint, and a card that says what they are
    and how they are loaded here and in SAELens; each is saved, loaded and compared before anything is uploaded. Where
    a folder has a feature database (`expander features`), the card tells from it how often features fire, with a
    picture, and how readable they are. Nothing else is sent: no texts, no databases, no optimizer. It needs the token
    of `hf auth login`, or HF_TOKEN.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of autoencoders, or one folder that `expander dashboard` wrote."""
    to: str
    """The repository, as owner/name; it is made if it is not there."""
    private: bool = False
    """Let a new repository be seen by its owner only."""
    license: str | None = None
    """What the card says about rights, by a name that the hub knows, such as apache-2.0."""

    def run(self) -> None:
        """Upload, then say where it is and at which commit."""
        with waiting(f"uploading to {self.to}"):
            published = self._published()
        terminal().print(f"It is at {published.url}, commit {published.revision}.", soft_wrap=True)

    def _published(self) -> Published:
        from expander_sae.autoencoder import SparseAutoencoder
        from expander_sae.evaluation.autoencoders import run_folders
        from expander_sae.features import FeatureDatabase
        from expander_sae.features.schema import DATABASE, FOLDER

        dashboards = [path for path in self.paths if (path / MARK).is_file()]
        if not dashboards:
            folders = run_folders(self.paths)
            loaded = {name: SparseAutoencoder.load(folder) for name, folder in folders.items()}
            looked_at = {
                loaded[name]: FeatureDatabase.open(folder)
                for name, folder in folders.items()
                if DATABASE.is_at(folder / FOLDER)
            }
            saes = by_hookpoint(loaded)
            databases = {name: looked_at[sae] for name, sae in saes.items() if sae in looked_at}
            return push_to_hub(saes, self.to, private=self.private, license=self.license, databases=databases)
        if len(self.paths) > 1 or self.license is not None:
            raise ExpanderError("A dashboard goes into a repository of its own, without a license; push it by itself.")
        return push_dashboard(dashboards[0], self.to, private=self.private)
