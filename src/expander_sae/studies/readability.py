"""How readable the features of compared dictionaries are: a held-out text, read once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from expander_sae.checks import Count
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import HeldOut, Quality, QualityConfig, Scene, quality_in
from expander_sae.evaluation.quality.keeping import keep, kept
from expander_sae.evaluation.quality.labels import labels_from_spans, labels_from_text
from expander_sae.evaluation.quality.measure import OF_TEXT
from expander_sae.evaluation.results import NOTHING, Interval
from expander_sae.files import write_checked
from expander_sae.interventions.hooks import hookpoint_named
from expander_sae.studies.compare import READABILITY, Contender, Record
from expander_sae.studies.data import ComparisonConfig, Data, StoreData
from expander_sae.studies.study import Stages, damaged, read_cell

TEXT, FOLDER = "held_out.safetensors", "readability"
"""The held-out text as the model reads it, and the folder of what was found of each dictionary."""


@dataclass(frozen=True)
class ReadingConfig(ComparisonConfig):
    """How the features of trained dictionaries are read."""

    labels: tuple[Path, ...] = ()
    """JSONL files of {"text": ..., "spans": [[begin, end, label], ...]} with labels for the documents of the held-out
    text, which features are probed for; without one, what the text tells by itself (digits, names, quotations, ...)."""
    text_tokens: Count = 50_000
    """Held-out tokens on which features are read."""
    features: Count = 250
    """Features that are drawn of each dictionary, of those that fire on 30 or more tokens in 10 or more documents."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for path in self.labels:
            if not path.is_file():
                raise ExpanderError(f"There is no file {path}; give a JSONL file of text and spans with --labels.")


def readable_data(data: Data) -> StoreData:
    """The data, if there is a text that can be read."""
    if not isinstance(data, StoreData):
        raise ExpanderError("Planted activations have no text to read; give a store with --store.")
    data.check_origins()
    return data


def read_text(config: ReadingConfig, data: StoreData, stages: Stages) -> None:
    """Read the text that features are measured on, before anything is trained: it may be refused, and so may labels."""
    path = config.out / TEXT
    what = f"{config.text_tokens:,} held-out tokens, on which features are read"
    with stages.stage("text", what, total=config.text_tokens, found=path.exists()) as stage:
        if not path.exists():
            hookpoint = hookpoint_named(data.language_model.model, data.origin["hookpoint"])
            held_out = HeldOut.read(
                data.language_model, data.held_out_text, hookpoint, tokens=config.text_tokens,
                massive_above=data.source.massive_above, report=stage.proceeds,
            )  # fmt: skip
            _scene(config, held_out, 0)
            keep(held_out, path)
        stage.outcome = f"in {path}"


def qualities_of(
    contenders: Sequence[Contender], config: ReadingConfig, stages: Stages, shown: int = 0
) -> list[Quality]:
    """What the features of every contender tell a reader, out of the folder where an earlier run measured it.

    Of so many of its features contexts are kept, to be shown.
    """
    folder = config.out / FOLDER
    folder.mkdir(exist_ok=True)
    missing = [each for each in contenders if not _file(folder, each).exists()]
    total = config.text_tokens * len(missing) or None
    what = f"what features of {len(contenders)} dictionaries under their coders tell a reader"
    with stages.stage("readability", what, total=total, found=not missing) as stage:
        scene = _scene(config, kept(config.out / TEXT), shown) if missing else None
        for number, each in enumerate(missing):
            assert scene is not None
            write_checked(_file(folder, each), quality_in(scene, each.load(), each.name).to_json())
            stage.proceeds((number + 1) * config.text_tokens)
        found = [_read(_file(folder, each)) for each in contenders]
        stage.outcome = f"of {config.features} features each"
    return found


def with_readability(record: Record, quality: Quality) -> Record:
    """The record with what was found of the features."""
    measures = {name: quality.measures.get(name, NOTHING) for name in READABILITY.values()}
    shares = {"fire_often": quality.eligible / quality.n, "fire_at_all": quality.firing / quality.n}
    return record.with_measures({**measures, **{name: Interval.bare(share) for name, share in shares.items()}})


def _scene(config: ReadingConfig, held_out: HeldOut, shown: int) -> Scene:
    """The text with its labels."""
    brought = {path.stem: labels_from_spans(path, held_out) for path in config.labels}
    labels = brought or {OF_TEXT: labels_from_text(held_out)}
    return Scene(held_out, labels, config=QualityConfig(config.features, ranks=False, effects=0, shown=shown))


def _file(folder: Path, contender: Contender) -> Path:
    return folder / f"{contender.name}.json"


def _read(path: Path) -> Quality:
    try:
        return Quality.from_json(read_cell(path))
    except (KeyError, TypeError) as error:
        raise damaged(path) from error
