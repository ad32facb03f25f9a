"""Writing the dashboard: the page's own files, the packed columns of all features, and a shard for every few."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders.named import name_of
from expander_sae.dictionaries import ComposedDictionary
from expander_sae.errors import ExpanderError
from expander_sae.features import FeatureDatabase
from expander_sae.features.matching import matched_by_columns, matched_by_firing, on_the_same_tokens
from expander_sae.files import replace_file, write_json
from expander_sae.reporting.dashboard.measures import Measure

MARK = "dashboard.json"
"""The file that says which databases a dashboard was written from, and by which version of the page."""
PER_SHARD = 64
"""Features whose pages are in one file."""
NUMBERS = {
    "fired": "i4", "density": "f4", "largest": "f4", "mean": "f4", "rank_mean": "f4", "token_r2": "f4", "purity": "f4",
    "column_entries": "i4",
}  # fmt: skip
"""Columns of the table that are numbers, and how the page keeps them."""
STATUS = ("alive", "rare", "dead")
PEAKS, WRITTEN = 6, 4
"""Tokens that stand for a feature in the table: those it fires on most strongly, and those it makes likelier."""

Report = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


@dataclass(frozen=True)
class Shown:
    """A dictionary as the dashboard is given it."""

    database: FeatureDatabase
    sae: SparseAutoencoder
    measures: Sequence[Measure] = ()


def page_files() -> Iterator[tuple[str, bytes]]:
    """The files that are the same in every dashboard: the page, its style and its scripts."""
    for file in sorted(files(__package__).joinpath("page").iterdir(), key=lambda each: each.name):
        yield file.name, file.read_bytes()


def write_dashboard(
    shown: Sequence[Shown], out: Path, report: Report = lambda what, done, total: None, per_shard: int = PER_SHARD
) -> Path:
    """Write a dashboard of one dictionary, or of two side by side; gives back the page to open.

    data.js is written last of the data and index.html last of all, so a killed command leaves no page that lies.
    """
    if not 1 <= len(shown) <= 2:
        raise ExpanderError(f"A dashboard shows one dictionary or two side by side, not {len(shown)}.")
    for each in shown:
        each.database.check(each.sae)
    if out.exists() and not out.is_dir():
        raise ExpanderError(f"{out} is a file; a dashboard is a folder, name another.")
    known = (MARK, "index.html", "pages")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in known):
        raise ExpanderError(f"{out} holds something that is no dashboard; name another folder.")
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").unlink(missing_ok=True)
    write_json(out / MARK, {"page": _page_version(), "databases": [each.database.checksum for each in shown]})
    described = []
    for number, each in enumerate(shown):
        pages = "pages" if number == 0 else f"pages{number + 1}"
        labels = _write_shards(each.database, out / pages, per_shard, report)
        described.append(_described(each, number, pages, labels, per_shard))
    if len(shown) == 2:
        for mine, other in ((0, 1), (1, 0)):
            described[mine]["columns"] |= _matches(shown[mine], shown[other], report)
    content = json.dumps({"dictionaries": described}, allow_nan=False)
    replace_file(out / "data.js", f"X.receive({content});\n".encode())
    names = dict(page_files())
    for name, data in names.items():
        if name != "index.html":
            replace_file(out / name, data)
    replace_file(out / "index.html", names["index.html"])
    return out / "index.html"


def _matches(mine: Shown, other: Shown, report: Report) -> dict[str, dict[str, str]]:
    """For every feature the one of the other that writes, and if known the one that fires, most nearly the same."""
    found = {"match": matched_by_columns(mine.sae, other.sae)}
    if on_the_same_tokens(mine.database, other.database):
        what, n = f"matching {mine.database.info.name}", mine.database.info.n
        found["fires_like"] = matched_by_firing(
            mine.database, other.database, lambda done: report(what, done, n)
        )  # fmt: skip
    features = {name: packed(match.features, "i4") for name, match in found.items()}
    return features | {f"{name}_cosine": packed(match.cosines, "f4") for name, match in found.items()}


def is_written(shown: Shown, folder: Path) -> bool:
    """Whether this folder is a finished dashboard whose first dictionary is this one, as it would be written now."""
    try:
        mark = json.loads((folder / MARK).read_text())
        same = mark["page"] == _page_version() and mark["databases"][0] == shown.database.checksum
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    return same and (folder / "index.html").is_file()


def _page_version() -> str:
    """Another one whenever the page, or what writes it, is another."""
    digest = hashlib.sha256()
    folder = files(__package__)
    for file in sorted((*folder.iterdir(), *folder.joinpath("page").iterdir()), key=lambda each: each.name):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _write_shards(database: FeatureDatabase, folder: Path, per_shard: int, report: Report) -> list[str]:
    """Write the pages of all features; gives back what stands for each in the table."""
    folder.mkdir(exist_ok=True)
    labels, n = list[str](), database.info.n
    for number, start in enumerate(range(0, n, per_shard)):
        stop = min(n, start + per_shard)
        rows = database.features().slice(start, stop - start).to_pylist()
        contexts: dict[int, list[dict[str, Any]]] = {}
        for context in database.contexts_of(start, stop).to_pylist():
            contexts.setdefault(context["feature"], []).append(context)
        pages = [_page(row, contexts.get(row["feature"], [])) for row in rows]
        labels += [_label(page) for page in pages]
        script = f'X.shard("{folder.name}", {number}, "{squeezed(pages)}");\n'
        replace_file(folder / f"{number:05d}.js", script.encode())
        report("writing pages", stop, n)
    for path in folder.glob("*.js"):
        if path.stem.isdigit() and int(path.stem) * per_shard >= n:
            path.unlink()  # of a larger dictionary that was shown here before
    return labels


def _page(row: Mapping[str, Any], contexts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page of a feature shows; nan, which JSON has not, is null."""
    kept = [{name: value for name, value in context.items() if name not in ("feature", "token_ids", "rank")}
            | ({} if context["tokens"] is not None else {"token_ids": context["token_ids"]})
            for context in contexts]  # fmt: skip
    return _plain({**row, "contexts": kept})


def _plain(value: Any) -> Any:
    """The same with numbers rounded to what is looked at, and null for what is no number."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _label(page: Mapping[str, Any]) -> str:
    """The commonest tokens among the strongest contexts, then those that the feature makes likelier."""
    strongest = [context for context in page["contexts"] if context["group"] == "strongest" and context["tokens"]]
    peaks = Counter(context["tokens"][context["peak"]] for context in strongest)
    written = (page["top_tokens"] or [])[:WRITTEN]
    return " ".join(token for token, _ in peaks.most_common(PEAKS)) + ("\x01" + " ".join(written) if written else "")


def _described(shown: Shown, number: int, pages: str, labels: Sequence[str], per_shard: int) -> dict[str, Any]:
    """What data.js says of a dictionary."""
    info, table = shown.database.info, shown.database.features()
    columns = {name: packed(_numbers(table, name), kind) for name, kind in NUMBERS.items()
               if table.column(name).null_count < len(table)}  # fmt: skip
    status = table.column("status").to_pylist()
    columns["status"] = packed(np.array([STATUS.index(each) for each in status]), "u1")
    composed = isinstance(shown.sae.dictionary, ComposedDictionary)
    touched = _matrix(table, "atoms" if composed else "rows", -1)
    if composed:
        weights = _matrix(table, "atom_weights", 0.0)
        counts = (touched >= 0).sum(axis=1)
        columns["column_entries"] = packed(counts, "i4")
        columns["parent"] = packed(np.where(counts > 1, touched[:, 0], -1), "i4")
    return {
        "name": info.name,
        "number": number,
        "n": info.n,
        "pages": pages,
        "per_shard": per_shard,
        "listed": touched.shape[1],
        "counts": {each: status.count(each) for each in STATUS},
        "facts": _facts(shown),
        "measures": [_plain(asdict(measure)) for measure in shown.measures],
        "columns": columns,
        "touched": packed(touched.ravel(), "i4"),
        "atoms": packed(weights.ravel(), "f4") if composed else None,
        "labels": squeezed(list(labels)),
    }


def _matrix(table: Any, name: str, nothing: float) -> NDArray[Any]:
    """A column of lists as a matrix, a feature a row."""
    lists = [each or [] for each in table.column(name).to_pylist()]
    matrix = np.full((len(lists), max(1, *map(len, lists))), nothing)
    for place, some in enumerate(lists):
        matrix[place, : len(some)] = some
    return matrix


def _facts(shown: Shown) -> list[tuple[str, str]]:
    """What the overview says the dictionary is."""
    info, sae = shown.database.info, shown.sae
    dense, origin = sae.m * sae.n, info.origin
    return [
        ("features", f"{sae.n:,} of width {sae.m}"),
        ("learned values", f"{sae.learned_values:,} ({dense / sae.learned_values:.1f} times fewer than dense columns)"),
        ("atoms", f"{sae.dictionary.atoms.n:,}" if isinstance(sae.dictionary, ComposedDictionary) else ""),
        ("coder", name_of(sae.coder)),
        ("model", str(origin.get("model") or "")),
        ("hookpoint", str(origin.get("hookpoint") or "")),
        ("text", Path(str(origin.get("text") or "")).name),
        ("tokens looked at", f"{info.tokens:,} of {info.documents:,} documents, {info.massive:,} massive left out"),
    ]


def _numbers(table: Any, name: str) -> NDArray[Any]:
    """A column as an array; null becomes nan."""
    column = table.column(name).to_numpy()
    return np.asarray(column, dtype=np.float64 if column.dtype.kind in "fO" else column.dtype)


def packed(values: NDArray[Any], kind: str) -> dict[str, str]:
    """An array as the page unpacks it."""
    data = np.ascontiguousarray(values.astype(f"<{kind}")).tobytes()
    return {"kind": kind, "data": _base64(data)}


def squeezed(content: Any) -> str:
    """JSON, packed."""
    return _base64(json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    """Gzipped, without the time of day in it, so that the same features give the same files."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
