"""`expander demo`: a real model's activations, four dictionaries, a report."""

from __future__ import annotations

from dataclasses import dataclass

from expander_sae.cli.announcing import Announcer, wide_console
from expander_sae.studies.demo.config import DemoConfig


@dataclass(frozen=True)
class Demo(DemoConfig):
    """Take apart a layer of a real language model with expander and dense dictionaries, and write a report about them.

    Everything lands in one folder; run it again to go on where it was stopped.
    """

    def run(self) -> None:
        """Announce the stages, then print the table and say where the page is."""
        from expander_sae.studies.demo.report import summary, table_of, write_report
        from expander_sae.studies.demo.run import run_demo

        console = wide_console()
        with Announcer(console) as announcer:
            result = run_demo(self, announcer)
        path = write_report(result)
        console.print(table_of(result).to_rich())
        console.print(summary(result), highlight=False)
        console.print(f"The whole report is {path}.", highlight=False, soft_wrap=True)
