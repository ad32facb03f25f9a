"""The wheel, in an environment that has never seen the clone: everything is in it, it runs, and its types are seen."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[2]
PACKAGE = CLONE / "src" / "expander_sae"

ENCODE = """
import torch
import expander_sae as xs

assert "site-packages" in xs.__file__, xs.__file__
W = xs.ExpanderDictionary(xs.Support.make("uniform", m=64, n=256, d=4))
sae = xs.SparseAutoencoder(W, xs.OMP(k=5))
x = torch.randn(10, 64)
sae.save("saved")
assert torch.equal(xs.SparseAutoencoder.load("saved").encode(x).values, sae.encode(x).values)
print(sae.encode(x).values.shape)
"""


def run(*command, cwd, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment | variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as pip builds it."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, CLONE, cwd=out)
    (found,) = out.glob("expander_sae-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel, whose dependencies are those of this one: nothing large is fetched again."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder.parent)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder.parent).strip())
    # A folder that is named so is searched, but the links inside it to clones are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_everything_of_the_package_is_in_the_wheel(wheel):
    files = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("expander_sae/")}
    assert inside == files
    assert "expander_sae/py.typed" in inside
    assert "expander_sae/reporting/dashboard/page/index.html" in inside


@pytest.mark.slow
def test_it_runs_outside_the_clone(environment, tmp_path):
    assert run(environment, "-c", ENCODE, cwd=tmp_path).strip() == "torch.Size([10, 5])"
    command = environment.with_name("expander")
    assert "Get a model and its activations" in run(command, "--help", cwd=tmp_path)
    assert "features n" in run(command, "info", "saved", cwd=tmp_path, COLUMNS="100")


@pytest.mark.slow
def test_its_types_are_seen_from_outside(environment, tmp_path):
    (tmp_path / "user.py").write_text("import expander_sae as xs\nreveal_type(xs.TopK(k=3).k)\n")
    python = ["--python-executable", environment, "--follow-imports=silent", "--no-incremental"]
    assert 'Revealed type is "int"' in run(sys.executable, "-m", "mypy", *python, "user.py", cwd=tmp_path)
