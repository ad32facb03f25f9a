"""`expander scaling`: the error over a grid of sizes, and a law that is tried on cells that it has not seen."""

from dataclasses import dataclass

from expander_sae.console import Announcer, terminal
from expander_sae.experiments.scaling_config import ScalingConfig


@dataclass(frozen=True)
class Scaling(ScalingConfig):
    """Fit laws to the error over features, active features, values per column and tokens.

    Trains a dictionary for every combination, all of one number of tokens in one pass, and measures FVU on held-out
    tokens. Fits powers, with interactions or a floor, and says how far each is off on cells that it has not seen.
    Writes tables, the numbers and pictures; run it again to go on where it was stopped.
    """

    def run(self) -> None:
        """Announce the stages, print the laws and what they say, say where the report is."""
        from expander_sae.experiments.scaling import run_scaling
        from expander_sae.experiments.scaling_report import laws_table, write_report
        from expander_sae.experiments.scaling_rows import study_of
        from expander_sae.experiments.scaling_words import sentences

        console = terminal()
        with Announcer(console) as announcer:
            result = run_scaling(self, announcer)
        rows, trials = study_of(result)
        path = write_report(result, rows, trials)
        console.print(laws_table(trials).to_rich())
        for sentence in sentences(rows, trials, result.grid):
            console.print(sentence)
        console.print(f"The report is {path}, beside it the numbers and the pictures.", soft_wrap=True)
