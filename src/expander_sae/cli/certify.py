"""`expander certify`: what is proved about a dictionary."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.certificates import CertifyConfig, as_text, certify
from expander_sae.errors import ExpanderError
from expander_sae.files import write_json


@dataclass(frozen=True, kw_only=True)
class Certify:
    """Tell what is proved about a dictionary, what is refuted, and what is only measured.

    Whether codes are unique, whether pursuit finds them, how well conditioned they are: for all codes of k features,
    for random sets of k features, and with a store for the sets that the autoencoder's own codes use.
    """

    path: tyro.conf.Positional[Path]
    """The folder of the autoencoder."""
    codes: Path | None = None
    """A store of activations; the codes of some of its tokens are looked at."""
    config: Annotated[CertifyConfig, tyro.conf.arg(name="")] = field(default_factory=CertifyConfig)
    json: Path | None = None
    """Also write everything to this .json file."""
    progress: bool = True
    """Show a live line."""

    def run(self) -> None:
        """Certify, print the statements by status, write the file."""
        if self.json is not None:
            _check_writable(self.json)
        sae = self._autoencoder()
        store = None if self.codes is None else Store.open(self.codes)
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            disable=not self.progress,
        ) as progress:  # fmt: skip
            tasks = {}

            def report(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage, total=total)
                progress.update(tasks[stage], completed=done)

            certificate = certify(sae, self.config, codes=store, report=report)
        console = Console()
        console.print(as_text(certificate), highlight=False, markup=False, soft_wrap=True)
        if self.json is not None:
            content = {"path": str(self.path), **certificate.to_json()}
            write_json(self.json, content)
            console.print(f"\nWritten to {self.json}.", highlight=False, markup=False, soft_wrap=True)

    def _autoencoder(self) -> SparseAutoencoder:
        """The one autoencoder of the folder."""
        from expander_sae.evaluation import load_runs

        found = load_runs([self.path])
        if len(found) > 1:
            raise ExpanderError(f"{self.path} holds {len(found)} autoencoders; name the folder of one of them.")
        return next(iter(found.values()))


def _check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work is done."""
    if path.suffix != ".json":
        raise ExpanderError(f"{path} must end in .json.")
    if not path.absolute().parent.is_dir():
        raise ExpanderError(f"The folder of {path} does not exist.")
