"""`expander bench`: the table of ratios, on this machine."""

from dataclasses import dataclass
from typing import Annotated

from expander_sae.checks import File, Range
from expander_sae.console import terminal, waiting


@dataclass(frozen=True)
class Bench:
    """Measure speed, size and memory against dense torch, torch CSR and scikit-learn, as ratios on this machine."""

    repeats: Annotated[int, Range(1, 1000)] = 7
    """Timed runs of each contestant; the median counts."""
    json: File | None = None
    """Also write the results to this file."""
    markdown: File | None = None
    """Also write the table to this file."""

    def run(self) -> None:
        """Run every case, then print and write the table."""
        from expander_sae.benchmarking.cases import cases
        from expander_sae.benchmarking.measure import describe_machine
        from expander_sae.benchmarking.results import as_json, as_markdown, as_table

        results, machine = [], describe_machine()
        for name, run in cases(self.repeats):
            with waiting(f"measuring {name}"):
                results += run()
        terminal().print(as_table(results, machine))
        command = f"expander bench --repeats {self.repeats}"
        if self.json is not None:
            self.json.write_text(as_json(results, machine, command))
        if self.markdown is not None:
            self.markdown.write_text(as_markdown(results, machine, command))
