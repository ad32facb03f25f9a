"""A process killed at any moment of a save leaves the old autoencoder or the new one, whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_save_leaves_the_old_or_the_new():
    command = [sys.executable, "-m", "tests.autoencoder.killed_saves"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    results = json.loads(finished.stdout)
    for scenario in ("every line, over an old one", "every line, first save"):
        assert results[scenario]["old"] > 20, "the kills must come before the commit too"
        assert results[scenario]["new"] > 5, "and after it"
    assert results["every line, the same again"].keys() == {"new"}
    assert results["middle of a file"] == {"old": 8}
    assert sum(results["random times"].values()) == 25
