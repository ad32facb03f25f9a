"""`expander coding`: encoders and dictionaries apart, on planted codes, and what everything costs."""

from dataclasses import dataclass

from expander_sae.cli.announcing import Announcer, wide_console
from expander_sae.studies.coding.config import CodingConfig


@dataclass(frozen=True)
class Coding(CodingConfig):
    """Compare encoders with coders that solve for each token, where the true codes and dictionary are known.

    Linear encoders (TopK, ReLU), an MLP, codes optimised by gradient from zero or from an encoder, OMP and the lasso;
    given the codes, the dictionary, or neither; dense and expander truths. Scores with intervals over seeds, costs in
    multiply-adds. Run it again to go on where it was stopped.
    """

    def run(self) -> None:
        """Announce the stages, print the table and what it says, say where the report is."""
        from expander_sae.studies.coding.report import rows_of, sentences, table_of, write_report
        from expander_sae.studies.coding.run import run_coding

        console = wide_console()
        with Announcer(console) as announcer:
            result = run_coding(self, announcer)
        path, rows = write_report(result), rows_of(result)
        console.print(table_of(rows).to_rich())
        for sentence in sentences(rows):
            console.print(sentence, highlight=False)
        console.print(f"The report is {path}, beside it the numbers and the pictures.", highlight=False, soft_wrap=True)
