"""The wheel with the oldest versions that it allows, of everything but torch, of which there is one CPU build here."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from tests.activations.prose import write_prose
from tests.packaging.environments import CLONE, UNOPTIMISED, USE, new_environment, run

PROJECT = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
FOR_OTHERS = {"dev", "docs", "peers", "wandb", "gpu"}
"""Extras for development, for other libraries, and for what no machine without an account or a GPU runs."""
LINE = re.compile(r"([\w-]+)==([\w.]+)")
TINY_MODEL = """
from tests.tiny import make_model, make_tokenizer

tokenizer = make_tokenizer()
make_model(tokenizer).save_pretrained("model")
tokenizer.save_pretrained("model")
"""
IMPORTS = """
import accelerate, datasets, filelock, gguf, jinja2, matplotlib.pyplot
import pyarrow, sklearn, starlette, tensorboard, uvicorn
"""
"""What extras ask for: a version that does not say what it needs itself is too old."""
COMMANDS = """
harvest model --layer 1 --tokens 1000 --text prose.jsonl --context 32 --out acts
train acts --out run --n 64 --d 4 --k 4 --tokens 512 --batch 128 --no-progress
eval run --tokens 300
features run --store acts
dashboard run
steer run --prompt The --add 1:1 --tokens 3
study planted --m 64 --n 128 --d 6 --k 3 --tokens 20 --out planted
bench --help
"""
"""One after another, on that model."""


def pins() -> dict[str, str]:
    """What constraints-oldest.txt says."""
    return dict(LINE.findall((CLONE / "constraints-oldest.txt").read_text()))


def allowed() -> dict[str, str]:
    """The oldest version of every dependency, as pyproject.toml names it."""
    extras = [some for extra, some in PROJECT["optional-dependencies"].items() if extra not in FOR_OTHERS]
    lines = [line for some in [PROJECT["dependencies"], *extras] for line in some]
    return dict(re.findall(r"([\w-]+)>=([\w.]+)", "\n".join(lines)))


def test_what_is_tried_is_what_is_allowed() -> None:
    """A pin may add zeros to the version that is allowed, as in 1.26.0, and nothing else."""
    assert pins().keys() == allowed().keys()
    for name, version in allowed().items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", pins()[name]), name


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="some of the oldest versions have no wheel for a newer Python")
def test_it_runs_with_the_oldest_versions(packages: tuple[Path, Path], tmp_path: Path) -> None:
    old = {name: version for name, version in pins().items() if name != "torch"}
    extras = ",".join(sorted(PROJECT["optional-dependencies"].keys() - FOR_OTHERS))
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(f"{name}=={version}" for name, version in old.items()))
    python = new_environment(tmp_path / "venv", f"{packages[1]}[{extras}]", "-c", constraints)
    code = f"from importlib.metadata import version; print(*map(version, {list(old)}))"
    assert run(python, "-c", code, cwd=tmp_path).split() == list(old.values())

    assert run(python, "-c", USE, cwd=tmp_path, **UNOPTIMISED).strip() == "torch.Size([10, 5])"
    run(python, "-c", IMPORTS, cwd=tmp_path)
    run(python, "-c", TINY_MODEL, cwd=tmp_path, PYTHONPATH=str(CLONE))
    write_prose(tmp_path)
    for command in COMMANDS.strip().splitlines():
        run(python.with_name("expander"), *shlex.split(command), cwd=tmp_path, **UNOPTIMISED)
    assert (tmp_path / "run" / "dashboard" / "index.html").is_file()
