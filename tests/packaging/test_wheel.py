"""The wheel, in an environment that has never seen the clone: everything is in it, it runs, and its types are seen."""

import sys
import tarfile
import zipfile

import pytest

from tests.packaging.environments import CLONE, UNOPTIMISED, USE, new_environment, run

PACKAGE = CLONE / "src" / "expander_sae"
MYPY = """
[mypy]
follow_imports = silent
[mypy-torch.*,numpy.*,numba.*,scipy.*,transformers.*]
follow_imports = skip
"""
"""Reads the types of the package and not those of what it is built on, which took four fifths of the time."""


@pytest.fixture(scope="module")
def environment(packages, tmp_path_factory):
    """A new environment with the wheel, whose dependencies are those of this one: nothing large is fetched again."""
    _, wheel = packages
    return new_environment(tmp_path_factory.mktemp("environment") / "venv", "--no-deps", wheel)


@pytest.mark.slow
def test_everything_of_the_package_is_in_the_wheel(packages):
    files = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    inside = set(zipfile.ZipFile(packages[1]).namelist())
    assert {name for name in inside if name.startswith("expander_sae/")} == files
    assert "expander_sae/py.typed" in inside
    assert "expander_sae/reporting/dashboard/page/index.html" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)


@pytest.mark.slow
def test_the_sdist_has_what_a_distributor_needs(packages):
    with tarfile.open(packages[0]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "Makefile"} <= inside
    assert {"constraints.txt", "constraints-oldest.txt", "tests/conftest.py", "docs/install.md"} <= inside


@pytest.mark.slow
def test_it_runs_outside_the_clone(environment, tmp_path):
    assert run(environment, "-c", USE, cwd=tmp_path, **UNOPTIMISED).strip() == "torch.Size([10, 5])"
    command = environment.with_name("expander")
    assert "Get a model and its activations" in run(command, "--help", cwd=tmp_path)
    assert "--repeats" in run(command, "bench", "--help", cwd=tmp_path)
    assert "features n" in run(command, "info", "saved", cwd=tmp_path, COLUMNS="100")


@pytest.mark.slow
def test_its_types_are_seen_from_outside(environment, tmp_path):
    (tmp_path / "user.py").write_text("import expander_sae as xs\nreveal_type(xs.TopK(k=3).k)\n")
    (tmp_path / "mypy.ini").write_text(MYPY)
    python = ["--config-file", "mypy.ini", "--python-executable", environment, "--no-incremental"]
    assert 'Revealed type is "int"' in run(sys.executable, "-m", "mypy", *python, "user.py", cwd=tmp_path)
