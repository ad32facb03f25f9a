"""The site of `make docs`: pages as they lie in the repository, and a reference written from the source itself.

Pages are laid out under the paths that they have in the repository, so a link that works in a clone works on the site,
and a broken one ends the build. `python docs/build_site.py FOLDER` makes FOLDER/site.
"""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = "zensical.toml"
COPIED = (
    "*.md", "docs/*.md", "docs/*.css", "docs/pictures/*", "docs/certificates/*", "benchmarks/results/*",
    "src/**/notes.md", "examples/*",
)  # fmt: skip
"""What pages are made of and link to."""
CHAPTERS = {
    "dictionaries": ("Supports, dictionaries, autoencoders", ["supports", "dictionaries", "autoencoder"]),
    "coders": ("Coders", ["coders"]),
    "activations": ("Models and activations", ["activations"]),
    "training": ("Training and fine-tuning", ["training", "finetuning"]),
    "measuring": ("Evaluation, features, certificates", ["evaluation", "features", "certificates"]),
    "interventions": ("Inside the model", ["interventions"]),
    "files": ("Other libraries, the hub, errors", ["interop", "errors"]),
    "kernels": ("Kernels", ["kernels"]),
}
"""Pages of the reference: title, and the rooms whose public names they explain."""


def build(folder: Path) -> None:
    """Write `folder/site`; a link that leads nowhere, or a public name without a page, ends it."""
    shutil.rmtree(folder, ignore_errors=True)
    lay_out(folder / "pages")
    shutil.copyfile(ROOT / "docs" / CONFIG, folder / CONFIG)
    for name, text in reference().items():
        (folder / "pages" / "reference" / f"{name}.md").write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, env=environment, check=True)


def lay_out(pages: Path) -> None:
    """Copy the pages, and the files that they link to."""
    (pages / "reference").mkdir(parents=True)
    for pattern in COPIED:
        for source in ROOT.glob(pattern):
            page = pages / source.relative_to(ROOT)
            page.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, page)


def reference() -> dict[str, str]:
    """The pages of the reference: a chapter of public names each, and all commands."""
    names = public_names()
    homeless = set(names) - {room for _, rooms in CHAPTERS.values() for room in rooms}
    if homeless:
        raise SystemExit(f"Which chapter has {', '.join(sorted(homeless))}? Say so in docs/build_site.py.")
    pages = {"commands": commands()}
    for page, (title, rooms) in CHAPTERS.items():
        sections = [f"::: expander_sae.{name}" for room in rooms for name in names[room]]
        pages[page] = "\n\n".join([f"# {title}", *sections]) + "\n"
    return pages


def public_names() -> dict[str, list[str]]:
    """The names that `import expander_sae` offers, by the room that they come from."""
    names = dict[str, list[str]]()
    for line in ast.parse((ROOT / "src" / "expander_sae" / "__init__.pyi").read_text()).body:
        if isinstance(line, ast.ImportFrom):
            rooms = [line.module.split(".")[0]] * len(line.names) if line.module else [name.name for name in line.names]
            for room, name in zip(rooms, line.names, strict=True):
                names.setdefault(room, []).append(name.name)
    return {"kernels": ["kernels.select", "kernels.pursue"]} | {r: n for r, n in names.items() if r != "kernels"}


def commands() -> str:
    """What every command says of itself when asked with `--help`."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    from expander_sae.cli.commands import GROUPS
    from expander_sae.cli.study import STUDIES

    lines = ["# Commands", "", "What `expander COMMAND --help` prints.", ""]
    for heading, group in GROUPS.items():
        lines += [f"## {heading}", ""]
        for name in group:
            lines += [f"### expander {name}", "", "```text", help_of(name), "```", ""]
            if name == "study":
                for study in STUDIES:
                    lines += [f"### expander study {study}", "", "```text", help_of(name, study), "```", ""]
    return "\n".join(lines)


def help_of(*command: str) -> str:
    """What a command prints when it is asked for help."""
    from expander_sae.cli.commands import run

    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        run(command[0], [*command[1:], "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()).strip("\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
