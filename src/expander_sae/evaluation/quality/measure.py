"""How readable the features of a dictionary are: every measure on one held-out text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import Count, CountOrNone, Seed, check_fields
from expander_sae.coders.named import name_of
from expander_sae.evaluation.autoencoders import check_width
from expander_sae.evaluation.bootstrap import Bootstrap
from expander_sae.evaluation.quality.effects import Removal, effects_of, removals_of
from expander_sae.evaluation.quality.firings import Measured, draw, firings_of, raw_coordinates
from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.intervals import PARTS, Reading, mean_of_defined, parts_of
from expander_sae.evaluation.quality.patterns import explain_features
from expander_sae.evaluation.quality.probes import Labels, Probe, ProbeTask
from expander_sae.evaluation.quality.ranks import Band, at_home, by_rank
from expander_sae.evaluation.quality.reading import (
    Contexts,
    Halves,
    any_tokens,
    coherence_of_activations,
    coherence_of_predictions,
    in_random_order,
    purity,
    strongest_first,
    token_r2,
)
from expander_sae.evaluation.quality.results import BandResult, ProbeResult, Quality
from expander_sae.evaluation.quality.showing import shown_features
from expander_sae.evaluation.results import Interval
from expander_sae.means import Patience

OF_TEXT = "text"
"""The suite of labels that the text tells by itself."""
EFFECTS_EACH = 2
"""Firings of a feature that are taken away."""

Report = Callable[[str, int, int], None]
"""Called with what is under way, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class QualityConfig:
    """What is measured, and of how many features."""

    features: Count = 250
    """Features that are drawn and measured, of those that fire on 30 or more tokens in 10 or more documents."""
    seed: Seed = 0
    """Draws features, halves of the documents, and contexts."""
    ranks: bool = True
    """Also measure the firings by rank of pick: what is picked first, and what only explains the rest."""
    effects: CountOrNone = 20
    """Features that are taken away inside the model, two firings each, to see how concentrated their effect is; 0 for
    none."""
    shown: CountOrNone = 6
    """Features, drawn at random, that the page shows with their contexts."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Insertion:
    """Where features are taken away."""

    language_model: LanguageModel
    hookpoint: Hookpoint


@dataclass(frozen=True)
class Scene:
    """A held-out text with what all dictionaries are measured with."""

    held_out: HeldOut
    labels: Mapping[str, Labels] = field(default_factory=dict)
    """By the suite that they belong to."""
    insertion: Insertion | None = None
    """None where no feature is taken away."""
    config: QualityConfig = field(default_factory=QualityConfig)
    report: Report = lambda what, done, total: None

    @property
    def halves(self) -> Halves:
        """Documents to learn from and to test on."""
        return Halves.of(self.held_out.document, self.config.seed)


def quality_of(
    sae: SparseAutoencoder,
    held_out: HeldOut,
    labels: Labels | None = None,
    config: QualityConfig | None = None,
    *,
    name: str = "autoencoder",
) -> Quality:
    """Every measure that needs no language model, for the features of an autoencoder under its own coder."""
    return quality_in(
        Scene(held_out, {"labels": labels} if labels else {}, config=config or QualityConfig()), sae, name
    )


def quality_in(scene: Scene, sae: SparseAutoencoder, name: str) -> Quality:
    """Every measure for the features of an autoencoder."""
    x = scene.held_out.x
    check_width({name: sae}, x.shape[1], "the held-out ones")
    scene.report(name, 0, 1)
    firings = firings_of(sae, x)
    bands = by_rank(sae, x, firings) if scene.config.ranks else []
    found = _Subject(name, name_of(sae.coder), firings, bands, sae)
    return _quality(scene, found)


def quality_of_coordinates(scene: Scene) -> Quality:
    """The same for the raw coordinates of the activations, above their means and below them."""
    return _quality(scene, _Subject("raw coordinates", "", raw_coordinates(scene.held_out.centred), [], None))


def chance_in(scene: Scene) -> Quality:
    """The same for features without any meaning, whose contexts are tokens drawn at random."""
    generator, document = np.random.default_rng(scene.config.seed), scene.held_out.document
    part = parts_of(document, scene.config.seed)
    count, name = scene.config.features, "random contexts"
    contexts, patience = list[Contexts](), Patience()
    for number in range(2 * count):  # those that stand for the strongest ones, then for drawn ones
        patience.check("Drawing random contexts", number, 2 * count)
        contexts.append(Contexts.of(any_tokens(document, generator), part, PARTS))
    readings = _of_contexts(scene.held_out, contexts[:count], contexts[count:])
    return Quality(name, "", count, 0, 0, count, {name: each.interval() for name, each in readings.items()})


@dataclass(frozen=True)
class _Subject:
    """What is measured: firings, and the autoencoder they are of, if they are of one."""

    name: str
    coder: str
    firings: csc_array
    bands: Sequence[Band]
    sae: SparseAutoencoder | None


def _quality(scene: Scene, subject: _Subject) -> Quality:
    """Every measure, one after the other."""
    held_out, config, firings = scene.held_out, scene.config, subject.firings
    steps = 4 + len(subject.bands)
    measured = draw(firings, held_out.document, config.features, config.seed)
    readings = _readings(scene, firings, measured)
    scene.report(subject.name, 1, steps)
    explained = explain_features(firings, held_out, scene.halves.first, measured.features.tolist())
    for measure in ("precision", "recall", "f1"):
        values = np.array([getattr(each, measure) for each in explained], dtype=np.float64)
        readings[f"pattern_{measure}"] = Reading(values, np.empty(0))
    scene.report(subject.name, 2, steps)
    readings |= _effects(scene, subject, measured)
    scene.report(subject.name, 3, steps)
    probes, of_probes = _probes(scene, firings)
    bands = []
    for number, (band, home) in enumerate(zip(subject.bands, at_home(subject.bands, firings), strict=True)):
        scene.report(subject.name, 4 + number, steps)
        bands.append(_band(scene, band, band.firings.nnz / max(1, firings.nnz), home))
    scene.report(subject.name, steps, steps)
    return Quality(
        name=subject.name,
        coder=subject.coder,
        n=measured.n,
        firing=measured.firing,
        eligible=measured.eligible,
        measured=len(measured.features),
        measures={**{name: each.interval() for name, each in readings.items()}, **of_probes},
        probes=probes,
        bands=bands,
        shown=shown_features(held_out, firings, measured.features, readings, explained, config.shown, config.seed),
    )


def _readings(scene: Scene, firings: csc_array, measured: Measured) -> dict[str, Reading]:
    """What contexts and tokens tell of the drawn features."""
    held_out, seed = scene.held_out, scene.config.seed
    document, generator = held_out.document, np.random.default_rng(seed)
    part = parts_of(document, seed)
    strongest = [Contexts.of(strongest_first(firings, document, int(each)), part, PARTS) for each in measured.features]
    drawn = [
        Contexts.of(in_random_order(firings, document, int(each), generator), part, PARTS) for each in measured.features
    ]
    chosen, first = firings[:, measured.features], scene.halves.first
    kept = [np.ones(len(part), dtype=bool), *(part != number for number in range(PARTS))]
    explained = [token_r2(chosen, held_out.token, first & each, ~first & each) for each in kept]
    return {"token_r2": Reading.of(np.stack(explained, axis=1)), **_of_contexts(held_out, strongest, drawn)}


def _of_contexts(held_out: HeldOut, strongest: Sequence[Contexts], drawn: Sequence[Contexts]) -> dict[str, Reading]:
    centred = held_out.centred
    found = {
        "purity": purity(held_out.folded, strongest),
        "coherence_of_predictions": coherence_of_predictions(held_out.predictions, strongest),
        "coherence_strongest": coherence_of_activations(centred, strongest),
        "coherence_any": coherence_of_activations(centred, drawn),
    }
    return {name: Reading.of(values.reshape(len(strongest), 1 + PARTS)) for name, values in found.items()}


def _probes(scene: Scene, firings: csc_array) -> tuple[list[ProbeResult], dict[str, Interval]]:
    """A probe for every label, and the means over those that a user brings, or over those of the text."""
    document = scene.held_out.document
    task, bootstrap = ProbeTask(scene.halves.first, document), Bootstrap(int(document.max()) + 1)
    suites = {suite: task.probes(firings, labels) for suite, labels in scene.labels.items()}
    found = {(suite, name): probe for suite, probes in suites.items() for name, probe in probes.items() if probe}
    results = [result_of(suite, probe, bootstrap) for (suite, _), probe in found.items()]
    brought = [probe for (suite, _), probe in found.items() if suite != OF_TEXT]
    return results, means_of(brought or list(found.values()), bootstrap)


def result_of(suite: str, probe: Probe, bootstrap: Bootstrap) -> ProbeResult:
    """A probe as it is reported."""
    return ProbeResult(
        suite,
        probe.label,
        probe.share,
        probe.feature,
        probe.single.f1(bootstrap),
        probe.together.f1(bootstrap),
        probe.loss,
        probe.loss_without,
        probe.auc,
    )


def means_of(probes: Sequence[Probe], bootstrap: Bootstrap) -> dict[str, Interval]:
    """The means over probes; nothing if there are none."""
    if not probes:
        return {}
    single, together = (
        [(2 * each.right.sums, each.said_and_true.sums) for each in counts]
        for counts in ([probe.single for probe in probes], [probe.together for probe in probes])
    )
    return {
        "probe_1": bootstrap.mean_of_ratios(single),
        "probe_8": bootstrap.mean_of_ratios(together),
        "probe_loss": Interval.bare(float(np.mean([probe.loss for probe in probes]))),
    }


def _band(scene: Scene, band: Band, share: float, home: int) -> BandResult:
    """What the firings of a band tell, which are this share of all."""
    measured = draw(band.firings, scene.held_out.document, scene.config.features, scene.config.seed)
    readings = _readings(scene, band.firings, measured)
    return BandResult(
        band.name, share, measured.eligible, home, {name: each.interval() for name, each in readings.items()}
    )


def _effects(scene: Scene, subject: _Subject, measured: Measured) -> dict[str, Reading]:
    """What the model's predictions lose with firings of some of the drawn features."""
    if scene.insertion is None or scene.config.effects == 0 or not len(measured.features):
        return {}
    generator, document = np.random.default_rng(scene.config.seed), scene.held_out.document
    features = np.sort(generator.permutation(measured.features)[: scene.config.effects])
    removals = list[Removal]()
    for feature in features.tolist():
        tokens = in_random_order(subject.firings, document, feature, generator)[:EFFECTS_EACH]
        strengths = subject.firings[tokens][:, [feature]].toarray()[:, 0]
        removals += _removals(scene, subject, feature, tokens, strengths)
    name = f"{subject.name}: effects"
    effects = effects_of(
        removals, scene.held_out, scene.insertion.language_model, scene.insertion.hookpoint,
        lambda done: scene.report(name, done, len(removals)),
    )  # fmt: skip
    return {
        f"effect_{what}": Reading(
            np.array([mean_of_defined(np.array([getattr(each, what) for each in effects[at : at + EFFECTS_EACH]]))
                      for at in range(0, len(effects), EFFECTS_EACH)]), np.empty(0))
        for what in ("spread", "size")
    }  # fmt: skip


def _removals(
    scene: Scene, subject: _Subject, feature: int, tokens: NDArray[np.int64], strengths: NDArray[np.float32]
) -> list[Removal]:
    """The firings of a feature of an autoencoder, or of a raw coordinate, whose mean stays."""
    if subject.sae is not None:
        return removals_of(subject.sae, feature, tokens, strengths)
    coordinate, below = feature % scene.held_out.x.shape[1], feature >= scene.held_out.x.shape[1]
    parts = []
    for token, strength in zip(tokens, strengths, strict=True):
        part = scene.held_out.x.new_zeros(scene.held_out.x.shape[1])
        part[coordinate] = -float(strength) if below else float(strength)
        parts.append(Removal(int(token), part))
    return parts
