"""`expander certify`: what is proved about a dictionary."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from expander_sae.activations.store import Store
from expander_sae.certificates import CertifyConfig, as_text, certify
from expander_sae.checks import File
from expander_sae.cli.inputs import autoencoder_in
from expander_sae.console import LiveLines, terminal
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
    json: File | None = None
    """Also write everything to this .json file."""
    progress: bool = True
    """Show a live line."""

    def run(self) -> None:
        """Certify, print the statements by status, write the file."""
        if self.json is not None:
            _check_writable(self.json)
        sae = autoencoder_in(self.path)
        store = None if self.codes is None else Store.open(self.codes)
        with LiveLines(shown=self.progress) as lines:
            certificate = certify(sae, self.config, codes=store, report=lines.update)
        console = terminal()
        console.print(as_text(certificate), soft_wrap=True)
        if self.json is not None:
            content = {"path": str(self.path), **certificate.to_json()}
            write_json(self.json, content)
            console.print(f"\nWritten to {self.json}.", soft_wrap=True)


def _check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work is done."""
    if path.suffix != ".json":
        raise ExpanderError(f"{path} must end in .json.")
