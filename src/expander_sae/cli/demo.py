"""`expander demo`: a real model's activations, four dictionaries, a report."""

from dataclasses import dataclass

from expander_sae.cli.study import answer
from expander_sae.console import terminal
from expander_sae.studies.demo import DemoConfig

PAGE = "report.html"
"""The page in the folder of the demo."""


@dataclass(frozen=True)
class Demo(DemoConfig):
    __doc__ = DemoConfig.__doc__

    def run(self) -> None:
        """Announce the stages, print the table and what it says, say where the page is."""
        from expander_sae.files import replace_file
        from expander_sae.reporting.page import page_of
        from expander_sae.studies.demo.run import run

        console = terminal()
        report = answer(run, self, console)
        replace_file(self.out / PAGE, page_of([report], report.title).encode())
        console.print(f"The whole report is {self.out / PAGE}.", soft_wrap=True)
