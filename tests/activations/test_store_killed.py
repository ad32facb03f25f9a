"""A harvest killed at any moment goes on without losing or doubling a token."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_harvests_end_as_if_nobody_had_stopped_them():
    command = [sys.executable, "-m", "tests.activations.store_kills"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    results = json.loads(finished.stdout)
    assert results["lines"] > 200, "every step of a harvest of three shards"
    assert results["files"] == 8, "three shards, their manifests, the first one and the last one"
    assert results["kills"] >= 1
