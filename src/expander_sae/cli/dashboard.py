"""`expander dashboard`: a page with every feature of a dictionary, to open in a browser."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from expander_sae.checks import PageFolder
from expander_sae.cli.holding import hold
from expander_sae.console import LiveLines, terminal
from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class Dashboard:
    """Write a page that shows every feature of a dictionary: what it fires on, what it writes, who fires with it.

    It is made of the database that `expander features RUN` wrote. The folder opens from a disk without a server, and
    any static host can serve it. Two dictionaries are shown side by side, their features matched by what they fire on
    if both databases are of the same tokens, and else by their columns.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The folder of an autoencoder, or of two."""
    out: PageFolder | None = None
    """The folder to write; by default RUN/dashboard."""
    measures: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """A .json file of `expander eval` or `expander quality`, for the overview; may be given several times."""

    def run(self) -> None:
        """Read the databases, write the folder, say what to open."""
        from expander_sae.autoencoder import SparseAutoencoder
        from expander_sae.evaluation import run_folders
        from expander_sae.features import FeatureDatabase
        from expander_sae.reporting.dashboard import Shown, measures_in, write_dashboard

        folders = run_folders(self.runs)
        if len(folders) > 2:
            raise ExpanderError(f"A dashboard shows one dictionary or two, and these are {len(folders)}; name two.")
        shown = [
            Shown(
                FeatureDatabase.open(folder),
                SparseAutoencoder.load(folder),
                [measure for path in self.measures for measure in measures_in(path, name)],
            )
            for name, folder in folders.items()
        ]
        out = next(iter(folders.values())) / "dashboard" if self.out is None else self.out
        hold(out)
        with LiveLines("features") as lines:
            page = write_dashboard(shown, out, lines.update)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        terminal().print(f"Open {page} in a browser ({size / 2**20:.1f} MiB in all).", soft_wrap=True)
