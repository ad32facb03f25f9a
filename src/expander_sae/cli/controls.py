"""`expander controls`: the same number of values a column, on supports of every kind."""

from dataclasses import dataclass

from expander_sae.console import Announcer, terminal
from expander_sae.experiments.controls_config import ControlsConfig


@dataclass(frozen=True)
class Controls(ControlsConfig):
    """Compare supports at equal d: rows that are spread, in clusters, all the same, in blocks or in bands.

    One pass trains a dictionary on each, with TopK and with orthogonal matching pursuit, and on uniform supports of
    other degrees. Measures FVU, features that never fire, and the supports themselves. Writes a table, the numbers and
    pictures; run it again to go on where it was stopped.
    """

    def run(self) -> None:
        """Announce the stages, print the table and what it says, say where the report is."""
        from expander_sae.experiments.controls import run_controls
        from expander_sae.experiments.controls_report import table_of, write_report
        from expander_sae.experiments.controls_rows import rows_of
        from expander_sae.experiments.controls_words import sentences

        console = terminal()
        with Announcer(console) as announcer:
            result = run_controls(self, announcer)
        path, rows = write_report(result), rows_of(result.cells, result.base.n)
        console.print(table_of(rows).to_rich())
        for sentence in sentences(rows, self.d):
            console.print(sentence)
        console.print(f"The report is {path}, beside it the numbers and the pictures.", soft_wrap=True)
