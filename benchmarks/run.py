"""Run everything and write benchmarks/results/cpu.json and cpu.md: `python -m benchmarks.run`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers import against_peers
from expander_sae.benchmarking.cases import Sizes, cases
from expander_sae.benchmarking.measure import describe_machine
from expander_sae.benchmarking.results import Result, as_json, as_markdown, as_table
from expander_sae.cli.process import keep_memory
from expander_sae.console import terminal, waiting

REPEATS = 9
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Every case of `expander bench`, and the peers."""
    keep_memory()  # as every command of expander does
    machine, results = describe_machine(), list[Result]()
    work = [*cases(REPEATS), ("training steps of peers", lambda: against_peers(Sizes(tokens=1024), REPEATS // 2))]
    for name, run in work:
        with waiting(f"measuring {name}"):
            results += run()
    terminal().print(as_table(results, machine))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cpu.json").write_text(as_json(results, machine, "make bench"))
    (RESULTS / "cpu.md").write_text("# Ratios on a CPU\n\n" + as_markdown(results, machine, "make bench"))


if __name__ == "__main__":
    main()
