"""Without SAELens, or with one that is too old, it says so in a sentence."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("found", ["raise ImportError", "SAE = object  # and no registry"], ids=["none", "older"])
def test_it_says_which_saelens_it_needs(found, tmp_path):
    (tmp_path / "sae_lens").mkdir()
    (tmp_path / "sae_lens/__init__.py").write_text(found)
    search = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", "import expander_sae.interop.saelens_host"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": search},
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("This needs SAELens 6.44 or newer, which is not installed here: pip install 'sae-lens>=6.44'.")
