"""`expander demo`: a real model's activations, four dictionaries, a report."""

from collections.abc import Sequence

from expander_sae.cli.asking import asked_for
from expander_sae.cli.study import answer
from expander_sae.console import terminal
from expander_sae.files import replace_file
from expander_sae.reporting.page import page_of
from expander_sae.studies.demo import run
from expander_sae.studies.demo.config import DASHBOARD, DICTIONARIES, DemoConfig

PAGE = "report.html"
"""The page in the folder of the demo."""


def main(arguments: Sequence[str]) -> None:
    """Announce the stages, print the table and what it says, say where the page is."""
    config = asked_for(DemoConfig, "expander demo", arguments)
    console = terminal()
    report = answer(run, config, console)
    replace_file(config.out / PAGE, page_of([report], report.title).encode())
    console.print(f"The whole report is {config.out / PAGE}.", soft_wrap=True)
    for page in (config.out / DICTIONARIES).glob(f"*/{DASHBOARD}/index.html"):
        console.print(f"Every feature is on the page {page}, which opens in a browser;", soft_wrap=True)
        console.print(f"expander view {page.parent.parent} shows it with the model behind it.", soft_wrap=True)
