"""`expander view`: the dashboard with the language model behind it, on this machine alone."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from expander_sae.checks import Range
from expander_sae.cli.inputs import autoencoder_in, hookpoint_of, language_model_of
from expander_sae.console import LiveLines, terminal


@dataclass(frozen=True)
class View:
    """Show every feature of a dictionary in a browser, with the language model behind the page.

    Type a text and see what fires; turn features up or down and read what the model then writes. The page is served to
    this machine alone, under an address that holds a secret; it stops when the page is closed, or with Ctrl-C.
    """

    run_folder: tyro.conf.Positional[Path]
    """The folder of an autoencoder, of which `expander features` made a database."""
    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub; that of the training by default."""
    hookpoint: str | None = None
    """Where in the model the dictionary belongs; where it was trained by default."""
    port: Annotated[int, Range(0, 65535)] = 0
    """The port to serve on; any free one by default."""
    open: bool = True
    """Open the page in a browser."""

    def run(self) -> None:
        """Load everything, write the page unless RUN/dashboard is it already, serve it."""
        from expander_sae.evaluation import run_folders
        from expander_sae.features import FeatureDatabase
        from expander_sae.reporting.dashboard import Shown, is_written, write_dashboard
        from expander_sae.server import Live, serve

        sae = autoencoder_in(self.run_folder)
        ((name, folder),) = run_folders([self.run_folder]).items()
        database = FeatureDatabase.open(folder)
        database.check(sae)
        language_model = language_model_of({name: sae}, self.model)
        hookpoint = hookpoint_of(sae, self.hookpoint or database.info.origin.get("hookpoint"))
        live = Live(database, sae.to(language_model.device), language_model, hookpoint)
        live.encode({"text": name})  # a model or a hookpoint that it is not for is refused before a page is shown
        page, shown = folder / "dashboard", Shown(database, sae)
        if not is_written(shown, page):
            with LiveLines("features") as lines:
                write_dashboard([shown], page, lines.update)
        serve(live, page, port=self.port, ready=self._ready)

    def _ready(self, address: str) -> None:
        terminal().print(f"{address}\nIt stops when the page is closed, or with Ctrl-C.", soft_wrap=True)
        if self.open:
            webbrowser.open(address)
