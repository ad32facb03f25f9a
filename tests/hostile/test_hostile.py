"""A slice of the harness: a few of everything, in a process whose forks start from one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = "1600"
"""Of no long run, so that whatever runs the tests tries what nobody has tried."""


@pytest.mark.slow
def test_a_slice_of_hostile_use_ends_in_results_and_sentences() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    called = [sys.executable, "-m", "tests.hostile", "--seed", SEED]
    done = subprocess.run(
        called,
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    assert "silent differences" in done.stdout
