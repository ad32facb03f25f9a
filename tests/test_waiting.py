"""Idle threads do not spin, unless the user wants them to."""

import os
import subprocess
import sys

import pytest

LOOK = """
import sys, os, expander_sae
names = list(sys.modules)
assert names.index("expander_sae._waiting") < names.index("torch")
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("given", "wanted"), [(None, "passive"), ("active", "active")])
def test_the_policy_is_set_before_torch_is_loaded_and_the_users_own_stays(given: str | None, wanted: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    found = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == wanted
