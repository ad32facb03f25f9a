"""`expander info`: what an autoencoder or a store of activations on disk is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from expander_sae.activations.store import Store
from expander_sae.activations.store.manifest import STORE
from expander_sae.autoencoder import Description, describe, stored_supports
from expander_sae.console import terminal
from expander_sae.supports import Support, max_overlap, right_degrees

OVERLAP_WORK = 500_000_000
"""Steps that the search for the largest overlap may take, the sum of the squared right degrees: about a second."""


@dataclass(frozen=True)
class Info:
    """Tell what is on disk.

    Of an autoencoder: sizes, support, coder, provenance, and how much smaller than a dense one it is. Of a store of
    activations: sizes, norms, and where they come from.
    """

    path: tyro.conf.Positional[Path]
    """The folder of the autoencoder or of the store."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        """Print the description; an autoencoder's files are verified first, of a store its manifest and sizes are."""
        if STORE.is_at(self.path):
            self._tell_of(Store.open(self.path))
            return
        description = describe(self.path)
        supports = {prefix: _statistics(support) for prefix, support in stored_supports(self.path).items()}
        if self.json:
            print(json.dumps({**description.to_json(), "support_statistics": supports}, indent=2))
            return
        console = terminal()
        console.print(_table(description))
        for prefix, statistics in supports.items():
            if statistics["max_overlap"] is None:
                statistics["max_overlap"] = "skipped: it would take long"
            if description.dictionary["kind"] == "composed":
                statistics = {name.replace("coordinate", "atom"): fact for name, fact in statistics.items()}
            console.print(_properties(f"support {prefix.removesuffix('.')}".strip(), statistics))
        if description.provenance:
            console.print(_properties("provenance", description.provenance))

    def _tell_of(self, store: Store) -> None:
        """Print what a store is."""
        precision = {"precision": store.precision} if "model" in store.origin else {}
        origin = {**store.origin, **precision}  # which harvests did not tell at first
        if self.json:
            print(json.dumps({"path": str(store.path), **store.manifest.to_json(), "origin": origin}, indent=2))
            return
        console = terminal()
        console.print(_properties(str(store.path), _facts_of(store)))
        console.print(_properties("origin", origin))


def _statistics(support: Support) -> dict[str, Any]:
    """What can be told about a support in a few seconds; the largest overlap only where it is cheap."""
    degrees = right_degrees(support)
    affordable = int(degrees.square().sum()) <= OVERLAP_WORK
    return {
        "support": str(support),
        "rows_sha256": support.sha256,
        "features_per_coordinate": {
            "min": int(degrees.min()),
            "mean": round(float(degrees.double().mean()), 2),
            "max": int(degrees.max()),
        },
        "uncovered_coordinates": int((degrees == 0).sum()),
        "max_overlap": max_overlap(support) if affordable else None,
    }


def _facts_of(store: Store) -> dict[str, Any]:
    """Sizes and norms of a store."""
    norms, shards = store.manifest.norms, store.manifest.shards
    facts = {
        "width m": f"{store.width:,}",
        "tokens": f"{store.tokens:,} of {store.documents:,} documents",
        "harvest": "complete" if store.complete else "not finished",
        "stored in": str(store.dtype).removeprefix("torch."),
        "bytes on disk": f"{sum(shard.bytes for shard in shards):,} in {len(shards)} shard{'s' * (len(shards) != 1)}",
    }
    if norms is not None:
        facts["norms"] = f"mean {norms.mean:.6g}, median {norms.median:.6g}, {norms.massive:,} massive tokens"
    return facts


def _table(description: Description) -> Table:
    encoder = "the dictionary itself" if description.tied else "its own values on the same support"
    facts = {
        "width m": f"{description.m:,}",
        "features n": f"{description.n:,}",
        "degree d": _degree(description),
        "dictionary": _kind(description.dictionary),
        "coder": _call(description.coder),
        "encoder": encoder + (", with a latent bias" if description.latent_bias else ""),
        "scale": f"{description.scale:.6g}",
        "learned values": f"{description.learned_values:,} in {_types(description)}",
        "bits per column": _bits_per_column(description),
        "bytes on disk": f"{description.bytes_on_disk:,}",
        "bytes if dense": f"{description.dense_bytes:,}, {description.ratio:.1f} times as many",
        "written by": f"expander-sae {description.library_version}",
    }
    return _properties(description.path, facts)


def _kind(dictionary: dict[str, Any]) -> str:
    """What kind of dictionary it is, and what its columns are mixtures of."""
    if "atoms" not in dictionary:
        return str(dictionary["kind"])
    return f"{dictionary['kind']}: mixtures of {dictionary['atoms']['n']:,} dense atoms"


def _degree(description: Description) -> str:
    """Values per column, and how much that varies."""
    if description.d is not None:
        return f"{description.d:,}"
    columns = description.dictionary.get("mixtures", description.dictionary)
    entries, most = (columns.get(name) for name in ("entries", "d"))
    return "differs by block" if entries is None else f"{entries / description.n:.2f} on average, at most {most:,}"


def _types(description: Description) -> str:
    quantised = description.values != description.dtype
    return f"{description.values}, biases in {description.dtype}" if quantised else description.dtype


def _bits_per_column(description: Description) -> str:
    """What values, scales and rows take on average, and what rows would if all were as likely."""
    text = ", ".join(f"{part} {number:.1f}" for part, number in description.bits_per_column.items() if number)
    if description.row_bits_bound == 0:
        return text
    return f"{text} (at best {description.row_bits_bound:.1f} if all sets of coordinates were as likely)"


def _call(coder: dict[str, Any]) -> str:
    return f"{coder['name']}({', '.join(f'{name}={value!r}' for name, value in coder['parameters'].items())})"


def _properties(title: str, facts: dict[str, Any]) -> Table:
    """Two columns, one fact a line."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a hash must stay whole
    for name, fact in facts.items():
        table.add_row(name.replace("_", " "), _readable(fact))
    return table


def _readable(fact: object) -> str:
    if fact is None:
        return "none"
    if isinstance(fact, dict):
        return ", ".join(f"{name} {value}" for name, value in fact.items())
    return fact if isinstance(fact, str) else json.dumps(fact)
