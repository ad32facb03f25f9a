"""`expander planted`: planted sparse codes, found again."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from expander_sae.studies.planted import PlantedConfig, Recovery, recover_planted


@dataclass(frozen=True)
class Planted(PlantedConfig):
    """Recover planted sparse codes with TopK, matching pursuit and OMP, beside a dense dictionary."""

    def run(self) -> None:
        """Print a table that grows row by row."""
        console = Console()
        console.print(
            f"{self.tokens} activations of width {self.m}, each a sum of {self.k} out of {self.n} columns. "
            f"Which columns? (The first run compiles the kernels, a few seconds.)"
        )
        rows: list[Recovery] = []
        with console.status("making the dictionary") as status:
            for recovery in recover_planted(self):
                rows.append(recovery)
                status.update(f"{recovery.dictionary} {recovery.coder} done")
        console.print(_table(rows))
        expander, dense = rows[0].dictionary_bytes, rows[-1].dictionary_bytes
        slow, fast = rows[3].milliseconds, rows[0].milliseconds
        console.print(
            f"In memory the expander dictionary is {dense / expander:.0f} times smaller (values and rows), "
            f"and its TopK codes took {slow / fast:.0f} times less time."
        )


def _table(rows: list[Recovery]) -> Table:
    table = Table()
    for heading in ("dictionary", "coder", "features found", "tokens exact", "error", "ms per 1000 tokens", "memory"):
        table.add_column(heading, justify="left" if heading in ("dictionary", "coder") else "right")
    for row in rows:
        table.add_row(
            row.dictionary,
            row.coder,
            f"{row.recall:.1%}",
            f"{row.exact:.1%}",
            f"{row.error:.4f}",
            f"{row.milliseconds:.1f}",
            f"{row.dictionary_bytes / 2**20:.1f} MiB",
        )
    return table
