"""The Triton kernels compile for real GPUs, on a machine without one, to code without fused sums and without spills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", minversion="3.3", reason="older versions describe a kernel's arguments differently")


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "types"), [("80", ["fp32"]), ("90", ["fp32", "bf16", "fp64"])])
def test_compiles_to_what_the_docstrings_promise(architecture, types, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_for_gpu.py")
    done = subprocess.run(
        [sys.executable, script, architecture, *types],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report) >= 6
    for kernel, found in report.items():
        if not kernel.startswith(("_take_step", "_pursue_among")):
            assert found["fused"] == 0, kernel
            assert found["spilled"] == 0, kernel
        else:  # divisions of doubles are made of fused sums, and a token's two matrices of them fill the registers
            assert found["fused"] == 0 or "fp64" in kernel, kernel
            assert found["spilled"] <= 64, kernel
    for kernel in ("maxima_of_groups fp32", "_all_correlations fp32"):
        assert report[kernel]["sums"] > 0
        # One load of 16 bytes a row and thread: it is the tile's row that is read side by side.
        assert report[kernel]["wide loads"] >= 7
