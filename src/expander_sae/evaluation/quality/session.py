"""Measuring several dictionaries on one text: what is done is kept in a folder, and a later run goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation.autoencoders import Subjects, check_width
from expander_sae.evaluation.bootstrap import Bootstrap
from expander_sae.evaluation.quality.firings import draw, firing_often, firings_of, raw_coordinates
from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.judge.client import Costs, Judge
from expander_sae.evaluation.quality.judge.judging import Exhibit, costs_of, exhibits_of, judge_features, judged
from expander_sae.evaluation.quality.keeping import keep, kept
from expander_sae.evaluation.quality.labels import labels_from_spans, labels_from_text
from expander_sae.evaluation.quality.measure import (
    OF_TEXT,
    Insertion,
    QualityConfig,
    Report,
    Scene,
    chance_in,
    means_of,
    quality_in,
    quality_of_coordinates,
    result_of,
)
from expander_sae.evaluation.quality.results import Quality
from expander_sae.evaluation.quality.sequences import SAE_PROBES, Sequences, sae_probes_tasks
from expander_sae.evaluation.quality.stability import columns_found_again, firings_found_again
from expander_sae.evaluation.results import Interval
from expander_sae.evaluation.setting import Setting
from expander_sae.files import checksum, read_checked, to_bytes, write_checked
from expander_sae.version import __version__

HELD_OUT, SEQUENCES, MEASURED = "held_out.safetensors", "sequences.safetensors", "measured"
"""What is kept in the folder: the texts as the model read them, and what was found of each dictionary."""
COORDINATES = "raw coordinates"
"""Measured beside the dictionaries."""


@dataclass(frozen=True)
class Plan:
    """What is measured of every dictionary, and on what."""

    tokens: int = 50_000
    labels: tuple[Path, ...] = ()
    """Files of text and spans."""
    sequences: int = 0
    """Tasks of the suite `sae-probes`."""
    sequence_texts: int = 200
    """Texts of each of them."""
    baselines: bool = True
    """Also measure random contexts and raw coordinates."""
    config: QualityConfig = field(default_factory=QualityConfig)


class Session:
    """Dictionaries that are measured on one text."""

    def __init__(
        self,
        saes: Subjects,
        language_model: LanguageModel,
        setting: Setting,
        plan: Plan,
        *,
        again: Mapping[str, SparseAutoencoder] | None = None,
        folder: Path | None = None,
        report: Report = lambda what, done, total: None,
    ) -> None:
        """`again` holds other seeds of some of the dictionaries, by their names; without a folder nothing is kept."""
        self.saes, self.plan = saes, plan
        self._setting, self._again, self._report = setting, again or {}, report
        self._language_model, self._folder = language_model, folder
        tasks = sae_probes_tasks(plan.sequences, plan.sequence_texts, plan.config.seed) if plan.sequences else []
        if folder is not None:
            (folder / MEASURED).mkdir(parents=True, exist_ok=True)
        self.held_out = self._read_text()
        check_width({**saes, **self._again}, self.held_out.x.shape[1], f"those of {setting.hookpoint}")
        labels = {path.stem: labels_from_spans(path, self.held_out) for path in plan.labels}
        sequences = None if folder is None else folder / SEQUENCES
        self._sequences = (
            Sequences.read(language_model, setting.hookpoint, tasks, sequences, report) if tasks else Sequences([], [])
        )
        self.scene = Scene(
            self.held_out,
            {**labels, OF_TEXT: labels_from_text(self.held_out)},
            Insertion(language_model, setting.hookpoint) if plan.config.effects else None,
            plan.config,
            report,
        )

    def qualities(self) -> list[Quality]:
        """What is found of every dictionary, and of raw coordinates and random contexts beside them."""
        subjects: dict[str, SparseAutoencoder | None] = dict(self.saes)
        if self.plan.baselines:
            subjects[COORDINATES] = None
        found = [self._known(name, sae) or self._measured(name, sae) for name, sae in subjects.items()]
        return [*found, chance_in(self.scene)] if self.plan.baselines else found

    def described(self) -> dict[str, Any]:
        """The setting, as a report tells it."""
        return self._setting.described(self._language_model, self.held_out.massive_above)

    def costs(self, judge: Judge, features: int) -> Costs:
        """What it costs to have so many features of every dictionary judged."""
        return Costs.together([costs_of(judge, self._exhibits(sae, features)) for sae in self.saes.values()])

    def judged(self, judge: Judge, features: int, qualities: Sequence[Quality], report: Report) -> list[Quality]:
        """The same with what a judge says of so many features of every dictionary."""
        return [self._judged(judge, features, each, report) if each.name in self.saes else each for each in qualities]

    def _read_text(self) -> HeldOut:
        """The text as the model reads it, from the folder if it is there."""
        known = self._setting.massive_above
        origin = {**self._setting.described(self._language_model, known or 0.0), "tokens": self.plan.tokens}
        path = None if self._folder is None else self._folder / HELD_OUT
        if path is not None and path.exists():
            return kept(path, origin)
        held_out = HeldOut.read(
            self._language_model, self._setting.text, self._setting.hookpoint, tokens=self.plan.tokens,
            massive_above=known, report=lambda done: self._report("reading the text", done, self.plan.tokens),
        )  # fmt: skip
        if path is not None:
            keep(held_out, path, origin)
        return held_out

    def _known(self, name: str, sae: SparseAutoencoder | None) -> Quality | None:
        """What an earlier run in the same folder found of the same dictionary in the same way."""
        if self._folder is None or not self._path(name).exists():
            return None
        try:
            content = read_checked(self._path(name))
            return Quality.from_json(content["quality"]) if content["key"] == self._key(name, sae) else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _measured(self, name: str, sae: SparseAutoencoder | None) -> Quality:
        """Measure a dictionary, or raw coordinates, and keep what was found."""
        found = quality_of_coordinates(self.scene) if sae is None else quality_in(self.scene, sae, name)
        found = self._with_sequences(found, sae)
        if sae is not None and name in self._again:
            found = replace(found, measures={**found.measures, **self._stability(sae, self._again[name])})
        if self._folder is not None:
            write_checked(self._path(name), {"key": self._key(name, sae), "quality": found.to_json()})
        return found

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / MEASURED / f"{name.replace('/', '-')}.json"

    def _key(self, name: str, sae: SparseAutoencoder | None) -> str:
        """The same for the same dictionary measured in the same way, and for nothing else."""
        plan = {**asdict(self.plan), "labels": [_digest(path.read_bytes()) for path in self.plan.labels]}
        seeds = [None if each is None else _fingerprint(each) for each in (sae, self._again.get(name))]
        return checksum({"version": __version__, "setting": self.described(), "plan": plan, "dictionaries": seeds})

    def _with_sequences(self, quality: Quality, sae: SparseAutoencoder | None) -> Quality:
        """The same with what features tell of whole texts."""
        centre = self.held_out.x.mean(dim=0)
        probes = self._sequences.probes(
            lambda x: raw_coordinates(x - centre) if sae is None else firings_of(sae, x), self.plan.config.seed
        )
        if not probes:
            return quality
        bootstrap = Bootstrap(self.plan.sequence_texts)
        results = [result_of(SAE_PROBES, probe, bootstrap) for probe in probes]
        means = {f"text_{name}": value for name, value in means_of(probes, bootstrap).items()}
        area = Interval.bare(float(np.mean([result.auc for result in results])))
        measures = {**quality.measures, **means, "text_probe_auc": area}
        return replace(quality, probes=[*quality.probes, *results], measures=measures)

    def _stability(self, sae: SparseAutoencoder, other: SparseAutoencoder) -> dict[str, Interval]:
        """The shares of the features that fire often enough which another seed finds again."""
        document = self.held_out.document
        one, two = firings_of(sae, self.held_out.x), firings_of(other, self.held_out.x)
        features, others = firing_often(one, document), firing_often(two, document)
        found = {
            "columns_found_again": columns_found_again(sae, other, features, others),
            "firings_found_again": firings_found_again(one, two, features, others),
        }
        return {name: Interval.bare(each.share) for name, each in found.items()}

    def _exhibits(self, sae: SparseAutoencoder, features: int) -> list[Exhibit]:
        """What a judge is shown: features drawn at random among those that are measured."""
        config = self.plan.config
        firings = firings_of(sae, self.held_out.x)
        measured = draw(firings, self.held_out.document, config.features, config.seed).features
        chosen = np.sort(np.random.default_rng(config.seed).permutation(measured)[:features])
        return exhibits_of(self.held_out, firings, chosen.tolist(), config.seed)

    def _judged(self, judge: Judge, features: int, quality: Quality, report: Report) -> Quality:
        exhibits = self._exhibits(self.saes[quality.name], features)
        what = f"{quality.name}: judged"
        verdicts = judge_features(judge, exhibits, lambda done: report(what, done, len(exhibits)))
        said = {verdict.feature: verdict.explanation for verdict in verdicts}
        shown = [replace(each, explanation=said.get(each.feature, "")) for each in quality.shown]
        return replace(quality, judged=judged(verdicts), shown=shown)


def _fingerprint(sae: SparseAutoencoder) -> str:
    """The same for the same values under the same coder."""
    return _digest(to_bytes(sae.state_dict()) + repr(sae.coder).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
