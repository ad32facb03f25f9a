"""`expander compress`: an autoencoder in fewer bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.table import Table

from expander_sae.autoencoder import Compression, compress
from expander_sae.checks import AutoencoderFolder
from expander_sae.console import terminal


@dataclass(frozen=True)
class Compress:
    """Write an autoencoder again with its values in 8 or 4 bits, and tell what that saves and what it costs."""

    path: tyro.conf.Positional[Path]
    """The folder of the autoencoder, which stays as it is."""
    out: tyro.conf.Positional[AutoencoderFolder]
    """The folder of the smaller one."""
    values: Literal["int8", "int4"] = "int8"
    """What dictionary and encoder are stored in, with a scale of one byte per column."""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """What the biases are stored in."""

    def run(self) -> None:
        """Write, then print bytes before and after by part, and the error."""
        result = compress(self.path, self.out, self.values, getattr(torch, self.dtype))
        console = terminal()
        console.print(_table(result))
        console.print(f"The values changed by {result.error:.3%} of their norm.")


def _table(result: Compression) -> Table:
    """Bytes by part, a part a line."""
    before, after = result.before, result.after
    table = Table()
    for heading in ("part", f"{before.values} before", f"{after.values} after"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, size in before.bytes_by_part.items():
        table.add_row(part, f"{size:,}", f"{after.bytes_by_part[part]:,}")
    ratio = before.bytes_on_disk / after.bytes_on_disk
    table.add_section()
    table.add_row("bytes on disk", f"{before.bytes_on_disk:,}", f"{after.bytes_on_disk:,}, {ratio:.1f} times smaller")
    return table
