"""Run everything and write benchmarks/results/cpu.json and cpu.md: `python -m benchmarks.run`.

`--memory returned` leaves the process with glibc's habit of giving large blocks back to the system and fetching them
again page by page, as a program does that takes no care; results are then cpu_memory_returned.json and .md. `--name`
calls them otherwise than cpu, which keeps those of another processor.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.peers import against_peers
from expander_sae.benchmarking.cases import Sizes, cases
from expander_sae.benchmarking.measure import describe_machine
from expander_sae.benchmarking.results import Result, as_json, as_markdown, as_table
from expander_sae.cli.process import keep_memory
from expander_sae.console import terminal, waiting

REPEATS = 9
COMMAND = "python -m benchmarks.run"
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Every case of `expander bench`, and the peers."""
    parser = argparse.ArgumentParser(description="Measure every ratio of docs/performance.md.")
    parser.add_argument("--memory", choices=["kept", "returned"], default="kept", help="what becomes of freed memory")
    parser.add_argument("--name", default="cpu", help="what results are called in benchmarks/results (%(default)s)")
    options = parser.parse_args()
    returned = options.memory == "returned"
    if not returned:
        keep_memory()  # as every command of expander does
    machine, results = describe_machine(), list[Result]()
    work = [*cases(REPEATS), ("training steps of peers", lambda: against_peers(Sizes(tokens=1024), REPEATS // 2))]
    for name, run in work:
        with waiting(f"measuring {name}"):
            results += run()
    terminal().print(as_table(results, machine))
    RESULTS.mkdir(exist_ok=True)
    command = f"{COMMAND} --memory {options.memory} --name {options.name}"
    name, title = options.name, "# Ratios on a CPU"
    if returned:
        name, title = f"{name}_memory_returned", f"{title}, memory returned to the system"
    (RESULTS / f"{name}.json").write_text(as_json(results, machine, command))
    (RESULTS / f"{name}.md").write_text(f"{title}\n\n" + as_markdown(results, machine, command))


if __name__ == "__main__":
    main()
