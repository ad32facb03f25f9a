"""Packages as they are built, and environments that have never seen the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

CLONE = Path(__file__).parents[2]
USE = """
import torch
import expander_sae as xs

assert "site-packages" in xs.__file__, xs.__file__
W = xs.ExpanderDictionary(xs.Support.make("uniform", m=64, n=256, d=4))
sae = xs.SparseAutoencoder(W, xs.OMP(k=5))
x = torch.randn(10, 64)
sae.save("saved")
assert torch.equal(xs.SparseAutoencoder.load("saved").encode(x).values, sae.encode(x).values)
run = xs.train(torch.randn(256, 64), xs.TrainConfig(n=128, d=4, k=5, tokens=512, batch=128), progress=False)
print(sae.encode(x).values.shape)
"""
"""What must work in any environment: encode, save, load, train."""

UNOPTIMISED = {"NUMBA_OPT": "0"}
"""What kernels compute is tested elsewhere: here most of the time would go to LLVM, which only makes them faster."""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What a command prints, which must not fail, without the paths of this environment."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")  # the last, as pip is not asked to compile
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment | variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def built(out: Path) -> tuple[Path, Path]:
    """The sdist of the clone, and the wheel that is built from it."""
    run(sys.executable, "-m", "build", "--outdir", out, CLONE, cwd=out)
    (sdist,), (wheel,) = out.glob("expander_sae-*.tar.gz"), out.glob("expander_sae-*.whl")
    return sdist, wheel


def new_environment(folder: Path, *wanted: str | Path) -> Path:
    """The Python of a new environment in which pip has put what is wanted; what is here already counts as installed."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder.parent).strip())
    # A folder that is named so is searched, but the links inside it to clones are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--only-binary", ":all:"]
    # Python compiles what it imports, a small part of what is there.
    run(*install, "--no-compile", *wanted, cwd=folder.parent)
    return python
