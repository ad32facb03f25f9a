"""The card of a repository on the Hugging Face hub: what is in it, how good it is, and how to load it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from expander_sae.autoencoder import Description, SparseAutoencoder
from expander_sae.coders.named import name_of
from expander_sae.features import FeatureDatabase
from expander_sae.reporting.charts import Axis, Picture, Series, line_chart

TAGS = ("tags:", "- sparse-autoencoder", "- expander-sae")
PICTURE = "densities.png"
"""Beside an autoencoder whose features were looked at: how often they fire."""
DRAWN = 400
"""Points of the line in the picture."""


def card(
    repository: str,
    saes: Mapping[str, SparseAutoencoder],
    described: Mapping[str, Description],
    databases: Mapping[str, FeatureDatabase],
    license: str | None = None,
) -> str:
    """The README of a repository: what is in it, where it comes from, how to load it."""
    first = next(iter(saes))
    models = sorted({str(sae.provenance.get("activations", {}).get("model", "")) for sae in saes.values()} - {""})
    base = [f"base_model: {models[0]}"] if len(models) == 1 and "/" in models[0] else []
    head = [
        "---",
        "library_name: saelens",
        *base,
        *([] if license is None else [f"license: {license}"]),
        *TAGS,
        "- saelens",
        "---",
    ]
    rows = [
        f"| `{name}` | {each.m:,} | {each.n:,} | {each.learned_values / each.n:.1f} | {name_of(saes[name].coder)} | "
        f"{each.learned_values:,} | {each.bytes_on_disk:,} | {each.ratio:.0f} |"
        for name, each in described.items()
    ]
    return "\n".join([
        *head, "", f"# {repository.rpartition('/')[2]}", "",
        f"Sparse autoencoders for {', '.join(models) or 'a language model'}, made with expander-sae, whose columns "
        "touch few coordinates of an activation.", "",
        "| folder | width | features | values a feature | coder | learned values | bytes | times smaller than dense |",
        "|---|---|---|---|---|---|---|---|", *rows, "",
        *_trained_on(saes), *_features_of(databases), "## Load", "", "```python", "import expander_sae as xs", "",
        f'sae = xs.from_pretrained("{repository}", "{first}")', "codes = sae.encode(activations)", "```", "",
        "In SAELens, with expander-sae installed:", "", "```python", "import sae_lens",
        "import expander_sae.interop.saelens_host", "",
        f'sae = sae_lens.SAE.from_pretrained("{repository}", "{first}")', "```", "",
        "Give `revision` with the commit for the same numbers for ever. Tokens with massive activations (the first of "
        "a text, mostly) were left out of training: leave them as they are.", "",
    ])  # fmt: skip


def _trained_on(saes: Mapping[str, SparseAutoencoder]) -> Iterator[str]:
    """What is known of where each comes from, and what it was measured to lose."""
    for name, sae in saes.items():
        origin = sae.provenance.get("activations", {})
        known = {
            key: origin[key] for key in ("model", "revision", "hookpoint", "text", "context", "bos") if key in origin
        }
        metrics = sae.provenance.get("metrics", {})
        known |= {key: value for key, value in metrics.items() if isinstance(value, int | float)}
        if known:
            yield f"**`{name}`**: " + ", ".join(f"{key} {value}" for key, value in known.items()) + "."
            yield ""


def _features_of(databases: Mapping[str, FeatureDatabase]) -> Iterator[str]:
    """What features do on a text: how many fire, how readable they are, and the picture of how often."""
    if databases:
        yield "## Features"
        yield ""
    for name, database in databases.items():
        info, table = database.info, database.features()
        means = []
        for column, word in (("token_r2", "token R2"), ("purity", "purity")):
            values = np.asarray(table[column].drop_null())
            means += [f"{word} {values.mean():.3f}"] if len(values) else []
        readable = f"; on average {', '.join(means)}" if means else ""
        yield (
            f"**`{name}`**: on {info.tokens:,} tokens of {info.origin.get('text', 'a text')}, {info.alive:,} features "
            f"fire on ten or more, {info.rare:,} on fewer, {info.dead:,} on none{readable}. (Token R2: the share of "
            "what a feature does that follows from the token it is on; purity: how alike its ten strongest tokens are.)"
        )
        yield ""
        yield f"![How often the features of {name} fire]({name}/{PICTURE})"
        yield ""


def densities(database: FeatureDatabase) -> Picture:
    """On what share of the tokens features fire, from the most frequent one to the last that does."""
    fired = np.sort(np.asarray(database.features()["density"]))[::-1]
    fired = fired[fired > 0] if (fired > 0).any() else np.ones(1)
    places = np.unique(np.linspace(0, len(fired) - 1, DRAWN).astype(int))
    line = Series(database.info.name, ((places + 1) / database.info.n).tolist(), fired[places].tolist())
    return line_chart(
        [line], Axis("features, the most frequent first", percent=True), Axis("share of tokens", log=True)
    )
