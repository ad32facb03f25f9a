"""`expander demo`: a real model's activations, four dictionaries, a report."""

from __future__ import annotations

from dataclasses import dataclass

from expander_sae.console import Announcer, terminal
from expander_sae.experiments.demo import DemoConfig


@dataclass(frozen=True)
class Demo(DemoConfig):
    """Take apart a layer of a real language model with expander and dense dictionaries, and write a report about them.

    Everything lands in one folder; run it again to go on where it was stopped.
    """

    def run(self) -> None:
        """Announce the stages, then print the table and say where the page is."""
        from expander_sae.experiments.demo import run_demo
        from expander_sae.experiments.demo_report import table_of, write_report
        from expander_sae.experiments.demo_words import summary

        console = terminal()
        with Announcer(console) as announcer:
            result = run_demo(self, announcer)
        path = write_report(result)
        console.print(table_of(result).to_rich())
        console.print(summary(result))
        console.print(f"The whole report is {path}.", soft_wrap=True)
