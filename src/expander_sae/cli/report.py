"""`expander report`: finished experiments as one page."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from expander_sae.console import terminal
from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class Report:
    """Bind finished experiments into one HTML page that needs nothing else.

    Their sentences, tables and pictures as they are in the folders; nothing is run or measured.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `expander frontier`, `controls`, `amortisation`, `recovery`, `coding` or `scaling` finished, in the
    order of the page."""
    out: Path = Path("report.html")
    """The page."""
    title: str = "Experiments with expander dictionaries"
    """What stands over it."""

    def run(self) -> None:
        """Write the page and say where it is."""
        from expander_sae.experiments.report_reading import read_chapters
        from expander_sae.files import replace_file
        from expander_sae.reporting.binder import Binder, bound

        if not self.folders:
            raise ExpanderError("There is nothing to bind; give at least one folder of a finished experiment.")
        chapters = [chapter for folder in self.folders for chapter in read_chapters(folder)]
        html = bound(Binder(self.title, chapters))
        self.out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.out, html.encode())
        terminal().print(f"{len(chapters)} reports are in {self.out}.", soft_wrap=True)
