"""`expander study`: one study by its name, or finished ones as one page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from expander_sae.checks import FileInNewFolder, a_text
from expander_sae.cli.asking import asked_for
from expander_sae.console import Announcer, terminal
from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    from expander_sae.reporting.report import Report
    from expander_sae.studies.study import Config, Listener, Study

STUDIES = {
    "frontier": "What does a dictionary keep, at equal learned values or bytes, beside dense ones made smaller?",
    "supports": "Does it matter where the values of a column are, or only how many there are?",
    "amortisation": "How much of what small dictionaries lose is the encoder's, and not the dictionary's?",
    "readable": "What makes features tell a reader something: coder, degree, rows or training objective?",
    "recovery": "How many active features can every coder find exactly, and what does theory say?",
    "coding": "Is it the encoder that fails or the dictionary, where true codes and columns are known?",
    "scaling": "What do more features, active features, values per column and tokens buy?",
    "planted": "How well and how fast do coders find planted codes on a sparse and on a dense dictionary?",
}
"""Every study, by the name of its folder in `studies`, with the question that it answers."""
MISUSED = 2
"""Exit status where no study was named."""
PAGE = "page"
"""What binds reports; no study may be called so."""


@dataclass(frozen=True)
class Page:
    """Bind the reports of finished studies into one HTML page that needs nothing else.

    Their sentences, tables and pictures as they are in the folders; nothing is run or measured.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `expander study NAME` finished, in the order of the page."""
    out: FileInNewFolder = Path("report.html")
    """The page."""
    title: str = "Studies of expander dictionaries"
    """What stands over it."""

    def run(self) -> None:
        """Write the page and say where it is."""
        from expander_sae.files import replace_file
        from expander_sae.reporting.page import page_of
        from expander_sae.studies.study import read_reports

        if not self.folders:
            raise ExpanderError("There is nothing to bind; give at least one folder of a finished study.")
        a_text("The title", self.title)
        reports = [report for folder in self.folders for report in read_reports(folder, [*STUDIES, "demo"])]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.out, page_of(reports, self.title).encode())
        terminal().print(f"{len(reports)} reports are in {self.out}.", soft_wrap=True)


def main(arguments: Sequence[str]) -> None:
    """Run the study that the first argument names; without one, say which there are."""
    name, rest = next(iter(arguments), "--help"), list(arguments[1:])
    if name in ("-h", "--help"):
        _list_studies()
        sys.exit(0 if arguments else MISUSED)
    elif name == PAGE:
        asked_for(Page, f"expander study {PAGE}", rest).run()
    elif name in STUDIES:
        _run(name, rest)
    else:
        raise ExpanderError(f"There is no study {name!r}; expander study --help lists them.")


def _list_studies() -> None:
    print("usage: expander study NAME [options]; expander study NAME --help explains them.\n")
    width = max(map(len, STUDIES))
    for name, said in {**STUDIES, PAGE: "Binds the reports of finished studies into one HTML page."}.items():
        print(f"  {name:{width}}  {said}")


def _run(name: str, arguments: Sequence[str]) -> None:
    """Carry out a study and say where its report is."""
    study: Study[Any] = import_module(f"expander_sae.studies.{name}").STUDY
    config = asked_for(study.config, f"expander study {name}", arguments)
    console = terminal()
    report = answer(study.run, config, console)
    path = config.out / f"{report.name}.md"
    console.print(f"The report is {path}, beside it the numbers and the pictures.", soft_wrap=True)


def answer(run: Callable[[Config, Listener], Report], config: Config, console: Console) -> Report:
    """Announce the stages, write the report, and print its first table and the findings."""
    with Announcer(console) as announcer:
        report = run(config, announcer)
    report.write(config.out)
    heading, table = next(iter(report.tables.items()))
    console.print(f"{heading}:")
    console.print(table.to_rich())
    for finding in report.findings:
        console.print(finding)
    return report
