"""Draw the rooms of the package and who knows whom into docs/architecture.md: `python docs/draw_architecture.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import grimp

DOCUMENT = Path(__file__).parent / "architecture.md"
STOREYS = {
    "The face": ["cli", "studies", "benchmarking", "interop", "server", "reporting"],
    "Where the wings meet": ["training", "finetuning", "interventions", "evaluation", "certificates", "features"],
    "Wing 1: the dictionary": ["autoencoder", "coders", "dictionaries", "kernels", "supports"],
    "Wing 2: what is explained": ["activations"],
    "The ground": ["files", "philox", "distribution", "console", "checks", "means", "errors", "version"],
}
"""Rooms by storey; a room that is not built yet is left out of the picture."""
UPWARDS = "expander_sae.autoencoder.model", "expander_sae.interventions"
"""The one import that is allowed to run upwards (pyproject.toml says why) and is not drawn."""
OPENING, CLOSING = "```mermaid\n", "```\n"


def picture() -> str:
    """The rooms as a mermaid flowchart.

    An arrow says that a room imports another; those that follow from others, over rooms between, are left out, and so
    are those to the ground, on which all stand.
    """
    knows = _imports()
    lines = ["flowchart TB"]
    for number, (storey, rooms) in enumerate(STOREYS.items()):
        lines.append(f'  subgraph s{number}["{storey}"]')
        lines += [f"    {room}" for room in rooms if room in knows]
        lines.append("  end")
    for room, known in knows.items():
        indirect = {far for near in known for far in _reachable(near, knows)}
        lines += [f"  {room} --> {near}" for near in sorted(known - indirect)]
    lines += [f"  {wing} ~~~ s{len(STOREYS) - 1}" for wing in ("supports", "activations")]  # the ground is below
    return "\n".join(lines) + "\n"


def _imports() -> dict[str, set[str]]:
    """The rooms above the ground that each room imports; the ground's own are empty."""
    graph = grimp.build_graph("expander_sae", cache_dir=None)
    graph.remove_import(importer=UPWARDS[0], imported=UPWARDS[1])
    rooms = [room for storey in STOREYS.values() for room in storey]
    there = {module.split(".")[1] for module in graph.modules if "." in module}
    unknown = there - set(rooms) - {"__main__"}
    if unknown:
        raise SystemExit(f"Which storey are {', '.join(sorted(unknown))} on? Say so in docs/draw_architecture.py.")
    return {room: _known(graph, room, STOREYS["The ground"]) for room in rooms if room in there}


def _known(graph: grimp.ImportGraph, room: str, ground: Iterable[str]) -> set[str]:
    """The rooms that a room imports, without itself and the ground."""
    name = f"expander_sae.{room}"
    modules = {name} | graph.find_descendants(name)
    imported = {known for module in modules for known in graph.find_modules_directly_imported_by(module)}
    return {known.split(".")[1] for known in imported if "." in known} - {room, *ground}


def _reachable(room: str, knows: dict[str, set[str]]) -> set[str]:
    """All that a room knows, also over others."""
    near = knows[room]
    return near.union(*(_reachable(each, knows) for each in near))


def drawn_into(document: str, drawing: str) -> str:
    """The document with this drawing in place of its own."""
    before, rest = document.split(OPENING, 1)
    _, after = rest.split(CLOSING, 1)
    return before + OPENING + drawing + CLOSING + after


if __name__ == "__main__":
    DOCUMENT.write_text(drawn_into(DOCUMENT.read_text(), picture()))
