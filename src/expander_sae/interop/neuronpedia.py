"""The folder that Neuronpedia imports: a model's layer with its features and the texts they fire on, as lines of JSON.

What their importer wants to know and a feature database does not know is left empty: histograms of logits, correlated
neurons, vectors.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expander_sae.features.database import DatabaseInfo, FeatureDatabase
from expander_sae.files import replace_file

FEATURES_PER_BATCH = 1024
CREATOR = "clkht01d40000jv08hvalcvly"
"""The account that Neuronpedia's own tools name where no other is given."""
_QUARTERS = {"q1": (0.0, 0.25), "q2": (0.25, 0.5), "q3": (0.5, 0.75), "q4": (0.75, 1.0)}


def write_neuronpedia(database: FeatureDatabase, out: Path) -> Path:
    """Write the folder `MODEL/LAYER-NAME` inside `out`, and give it; features that never fired are left out."""
    names = _Names.of(database.info)
    folder = out / names.model / names.source
    for part in ("features", "activations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, row in names.about(database.info).items():
        replace_file(folder / f"{name}.jsonl", _lines([row]))
    for number, first in enumerate(range(0, database.info.n, FEATURES_PER_BATCH)):
        stop = min(first + FEATURES_PER_BATCH, database.info.n)
        rows = [row for row in database.features().slice(first, stop - first).to_pylist() if row["fired"]]
        histograms = {row["feature"]: row for row in rows}
        densities = database.features().column("density")
        features = [_feature(row, names, densities) for row in rows]
        activations = [
            _activation(context, histograms[context["feature"]], names)
            for context in database.contexts_of(first, stop).to_pylist()
            if context["group"] != "random"
        ]
        for part, content in (("features", features), ("activations", activations)):
            replace_file(folder / part / f"batch-{number}.jsonl.gz", gzip.compress(_lines(content), 5, mtime=0))
    return folder


class _Names:
    """What everything is called there, and when it was made."""

    def __init__(self, model: str, layer: str, collection: str) -> None:
        self.model, self.collection = model, collection
        self.source = f"{layer}-{collection}"
        self.shared = {"creatorId": CREATOR, "createdAt": datetime.now(UTC).isoformat()}

    @classmethod
    def of(cls, info: DatabaseInfo) -> _Names:
        """Names of letters, digits and dashes; the layer is the first number in the hookpoint."""
        numbers = re.findall(r"\d+", str(info.origin.get("hookpoint", "")))
        model = str(info.origin.get("model", "model")).rpartition("/")[2]
        return cls(_slug(model), numbers[0] if numbers else "0", _slug(info.name))

    def about(self, info: DatabaseInfo) -> dict[str, dict[str, Any]]:
        """The files of one line: release, model, set of sources, source."""
        title = f"{info.name}: {info.n:,} features of {self.model} at {info.origin.get('hookpoint')}, {info.coder}"
        public = {**self.shared, "visibility": "PUBLIC"}
        release = {
            "name": self.collection, "description": title, "descriptionShort": title, "creatorName": "",
            "creatorNameShort": "", "urls": [], "isNewUi": False, "featured": False, "defaultUmapSourceIds": [],
        }  # fmt: skip
        model = {
            "id": self.model, "instruct": False, "displayName": self.model, "displayNameShort": self.model,
            "inferenceEnabled": False, "layers": 0, "neuronsPerLayer": 0, "owner": "",
            "updatedAt": self.shared["createdAt"],
        }  # fmt: skip
        sources = {
            "modelId": self.model, "name": self.collection, "description": title, "releaseName": self.collection,
            "creatorName": "", "hasDashboards": True, "type": "", "urls": [], "defaultRange": 1,
            "defaultShowBreaks": True, "showCorrelated": True, "showDfa": False, "showHeadAttribution": False,
            "showUmap": False,
        }  # fmt: skip
        source: dict[str, Any] = {
            "id": self.source, "modelId": self.model, "setName": self.collection, "hasDashboards": True,
            "inferenceEnabled": False, "inferenceHosts": [], "hasUmap": False, "hasUmapLogSparsity": False,
            "hasUmapClusters": False, "num_prompts": None, "num_tokens_in_prompt": info.origin.get("context"),
            "dataset": str(info.origin.get("text", "")), "notes": f"{info.tokens} tokens",
        }  # fmt: skip
        rows = {"release": release, "model": model, "sourceset": sources, "source": source}
        return {name: {**row, **public} for name, row in rows.items()}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _feature(row: Mapping[str, Any], names: _Names, densities: Any) -> dict[str, Any]:
    """A feature as their table has it."""
    order = sorted(range(len(row["values"])), key=lambda place: -abs(row["values"][place]))
    values = [row["values"][place] for place in order]
    whole = sum(map(abs, values)) if row["column_entries"] == len(values) else 0.0
    bins, together = len(row["histogram"]), _together(row, densities)
    return {
        **names.shared, "modelId": names.model, "layer": names.source, "index": str(row["feature"]),
        "sourceSetName": names.collection, "maxActApprox": row["largest"], "frac_nonzero": row["density"],
        "hasVector": False, "vector": [], "vectorLabel": None, "hookName": None, "topkCosSimIndices": row["nearest"],
        "topkCosSimValues": row["nearest_cosine"],
        "neuron_alignment_indices": [row["rows"][place] for place in order], "neuron_alignment_values": values,
        "neuron_alignment_l1": [abs(value) / whole for value in values] if whole else [],
        "correlated_neurons_indices": [], "correlated_neurons_pearson": [], "correlated_neurons_l1": [],
        "correlated_features_indices": row["together"],
        "correlated_features_pearson": [pearson for pearson, _ in together],
        "correlated_features_l1": [cosine for _, cosine in together],
        "pos_str": row["top_tokens"] or [], "pos_values": row["top_token_logits"] or [],
        "neg_str": row["bottom_tokens"] or [], "neg_values": row["bottom_token_logits"] or [],
        "freq_hist_data_bar_heights": row["histogram"],
        "freq_hist_data_bar_values": [(place + 0.5) * row["largest"] / bins for place in range(bins)],
        "logits_hist_data_bar_heights": [], "logits_hist_data_bar_values": [], "decoder_weights_dist": [],
    }  # fmt: skip


def _together(row: Mapping[str, Any], densities: Any) -> list[tuple[float, float]]:
    """Correlation and cosine of firing with each of the features that fire together with this one."""
    own, tokens = row["density"], row["fired"] / row["density"]
    found = []
    for other, count in zip(row["together"], row["together_count"], strict=True):
        density = densities[other].as_py()
        spread = math.sqrt(own * (1 - own) * density * (1 - density))
        pearson = (count / tokens - own * density) / spread if spread else 0.0
        found.append((pearson, count / tokens / math.sqrt(own * density)))
    return found


def _activation(context: Mapping[str, Any], row: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    """A text that a feature fires on; one of the strongest belongs to the bin from -1 to -1."""
    values, tokens = context["activations"], context["tokens"]
    low = high = contains = -1.0
    if context["group"] in _QUARTERS:
        bounds = _QUARTERS[context["group"]]
        low, high = (_quantile(row["histogram"], row["largest"], share) for share in bounds)
        contains = bounds[1] - bounds[0]
    place = max(range(len(values)), key=values.__getitem__)
    key = json.dumps([names.model, names.source, row["feature"], context["group"], context["rank"]])
    return {
        **names.shared, "id": "c" + hashlib.sha256(key.encode()).hexdigest()[:24], "modelId": names.model,
        "layer": names.source, "index": str(row["feature"]),
        "tokens": [str(token) for token in context["token_ids"]] if tokens is None else tokens, "values": values,
        "maxValue": values[place], "maxValueTokenIndex": place, "minValue": min(values), "binMin": low,
        "binMax": high, "binContains": contains, "qualifyingTokenIndex": context["peak"], "dfaValues": [],
        "dfaTargetIndex": None, "dfaMaxValue": None, "lossValues": [], "logitContributions": None, "dataIndex": None,
        "dataSource": None,
    }  # fmt: skip


def _quantile(histogram: Sequence[int], top: float, share: float) -> float:
    """The activation that this share of the firings is below, read off a histogram from 0 to `top`."""
    wanted, below = share * sum(histogram), 0
    for place, count in enumerate(histogram):
        if below + count >= wanted and count:
            return top * (place + (wanted - below) / count) / len(histogram)
        below += count
    return top


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A line of JSON for each row."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
