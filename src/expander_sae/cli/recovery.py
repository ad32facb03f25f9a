"""`expander recovery`: how many active features every coder finds exactly, over supports and sizes."""

from dataclasses import dataclass

from expander_sae.cli.announcing import Announcer, wide_console
from expander_sae.studies.recovery.config import RecoveryConfig


@dataclass(frozen=True)
class Recovery(RecoveryConfig):
    """Plant random sparse codes, look for them, and draw where recovery ends, beside what theory says.

    A heat map over k/m and n/m for every dictionary and coder, with the share of tokens whose features are found
    exactly, the line of one half, proved certificates and predicted thresholds. Run it again to go on where it was
    stopped.
    """

    def run(self) -> None:
        """Announce the stages, print how far every coder gets, say where the report is."""
        from expander_sae.studies.recovery.report import sentences, transition_of, transition_table, write_report
        from expander_sae.studies.recovery.run import run_recovery

        console = wide_console()
        with Announcer(console) as announcer:
            result = run_recovery(self, announcer)
        path, transitions = write_report(result), [transition_of(result, strip) for strip in result.strips]
        console.print("Where half of the tokens are recovered exactly, as k / m:")
        console.print(transition_table(result, transitions).to_rich())
        for sentence in sentences(result, transitions):
            console.print(sentence, highlight=False)
        console.print(f"The report is {path}, beside it the numbers and the picture.", highlight=False, soft_wrap=True)
