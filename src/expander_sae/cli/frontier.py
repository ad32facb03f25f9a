"""`expander frontier`: every degree beside everything that one would do to a dense dictionary instead."""

from dataclasses import dataclass

from expander_sae.console import Announcer, terminal
from expander_sae.experiments.frontier_config import FrontierConfig


@dataclass(frozen=True)
class Frontier(FrontierConfig):
    """Train expander dictionaries of every degree in one pass, and compare them with smaller dense ones.

    At equal learned values and at equal bytes: dense dictionaries of fewer columns, of low rank, pruned, in 8, 4 and 2
    bits, and product-quantised. Writes a table, the numbers and pictures; run it again to go on where it was stopped.
    """

    def run(self) -> None:
        """Announce the stages, print both tables and who wins, say where the report is."""
        from expander_sae.experiments.frontier import run_frontier
        from expander_sae.experiments.frontier_report import table_of, write_report
        from expander_sae.experiments.frontier_rows import rows_of
        from expander_sae.experiments.frontier_words import sentences, verdict_table

        console = terminal()
        with Announcer(console) as announcer:
            result = run_frontier(self, announcer)
        path, rows = write_report(result), rows_of(result.cells)
        console.print(table_of(rows).to_rich())
        console.print(verdict_table(rows).to_rich())
        for sentence in sentences(rows):
            console.print(sentence)
        console.print(f"The report is {path}, beside it the numbers and the pictures.", soft_wrap=True)
