"""Several processes on this machine, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a module in so many processes, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "--", *arguments], capture_output=True, text=True, timeout=180, env=environment, check=False
    )
