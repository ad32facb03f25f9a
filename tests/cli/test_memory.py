"""Memory that was freed stays with a command."""

import platform
import subprocess
import sys

import pytest

ALLOCATE = """
import sys
import numpy as np
from expander_sae.cli.memory import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(3):
    block = np.ones(2**25)
    del block
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly")
def test_freed_memory_is_kept() -> None:
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", ALLOCATE, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "return")
    )
    assert kept - returned > 2**27  # of a block of 2**28 bytes
