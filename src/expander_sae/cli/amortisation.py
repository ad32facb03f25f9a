"""`expander amortisation`: the same dictionaries under one product, a network, and coders that solve for each token."""

from dataclasses import dataclass

from expander_sae.console import Announcer, terminal
from expander_sae.experiments.amortisation_config import AmortisationConfig


@dataclass(frozen=True)
class Amortisation(AmortisationConfig):
    """Measure how much of what small dictionaries lose is the encoder's.

    One pass trains expander dictionaries, dense ones of as few values, and the dense one, with TopK and with orthogonal
    matching pursuit; each is measured under TopK, an MLP encoder trained for it, two pursuits and the lasso at equal
    k. Writes a table, the numbers and pictures; run it again to go on where it was stopped.
    """

    def run(self) -> None:
        """Announce the stages, print the table and what it says, say where the report is."""
        from expander_sae.experiments.amortisation import run_amortisation
        from expander_sae.experiments.amortisation_report import table_of, write_report
        from expander_sae.experiments.amortisation_rows import rows_of
        from expander_sae.experiments.amortisation_words import sentences

        console = terminal()
        with Announcer(console) as announcer:
            result = run_amortisation(self, announcer)
        path, rows = write_report(result), rows_of(result.cells)
        console.print(table_of(rows).to_rich())
        for sentence in sentences(rows):
            console.print(sentence)
        console.print(f"The report is {path}, beside it the numbers and the pictures.", soft_wrap=True)
