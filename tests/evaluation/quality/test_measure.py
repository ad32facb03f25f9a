"""A whole measurement: its records, what is beside it, and dictionaries of which the answer is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from expander_sae import DenseDictionary, SparseAutoencoder, TopK
from expander_sae.activations.models import LanguageModel
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import (
    HeldOut,
    Insertion,
    Quality,
    QualityConfig,
    Scene,
    chance_in,
    quality_in,
    quality_of,
    quality_of_coordinates,
)
from expander_sae.evaluation.quality.held_out import Text
from expander_sae.evaluation.quality.intervals import Reading, parts_of
from expander_sae.evaluation.quality.labels import labels_from_text
from expander_sae.evaluation.quality.predictions import Predictions
from tests.evaluation.quality.conftest import HOOKPOINT
from tests.evaluation.subjects import random

READINGS = ("token_r2", "purity", "coherence_of_predictions", "coherence_strongest", "coherence_any")


def planted(seed: int = 0, kinds: int = 12, count: int = 9000) -> HeldOut:
    """A text whose activations are the token's own direction and a little noise; sixty documents."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, kinds, (count,), generator=generator).numpy()
    document = np.arange(count) // 150
    directions = torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q[:kinds]
    x = directions[ids] * 5 + 0.05 * torch.randn(count, 32, generator=generator)
    text = Text(
        ids=ids,
        document=document,
        piece=document,
        position=np.arange(count) % 150,
        spans=np.stack([2 * (np.arange(count) % 150), 2 * (np.arange(count) % 150) + 2], axis=1),
        documents=["".join(f" {chr(97 + each)}" for each in ids[document == number]) for number in range(60)],
        spelled={number: f" {chr(97 + number)}" for number in range(kinds)},
    )
    predictions = Predictions(directions[ids] * 30, directions)
    return HeldOut(text, np.arange(count), x, predictions, 1e9)


def detectors(held_out: HeldOut, k: int = 1) -> SparseAutoencoder:
    """A feature for every kind of token."""
    kinds = len(held_out.text.spelled)
    means = torch.stack([held_out.x[held_out.text.ids == kind].mean(dim=0) for kind in range(kinds)])
    return SparseAutoencoder(DenseDictionary(32, kinds, means / means.norm(dim=1, keepdim=True)), TopK(k))


def test_detectors_of_tokens_read_perfectly() -> None:
    held_out = planted()
    labels = {f"is {kind}": held_out.text.ids == kind for kind in range(3)}
    found = quality_of(detectors(held_out), held_out, labels, QualityConfig(shown=12))
    values = found.means()
    for name in (*READINGS, "pattern_f1", "probe_1"):
        assert values[name] > 0.98, name
    assert values["features"] == 12
    assert values["firing"] == 1.0
    assert values["probe_loss"] < 0.01
    for shown in found.shown:
        assert shown.patterns == [held_out.text.spelled[shown.feature]]
        assert all(context.tokens[context.peak] == shown.patterns[0] for context in shown.contexts)


def test_random_contexts_and_coordinates_stand_beside_them() -> None:
    held_out = planted()
    scene = Scene(held_out, config=QualityConfig(features=100))
    chance, raw = chance_in(scene).means(), quality_of_coordinates(scene).means()
    perfect = quality_in(scene, detectors(held_out), "detectors").means()
    assert chance["coherence_strongest"] < 0.02
    assert chance["purity"] < 0.35  # twelve kinds of tokens: ten of them have a commonest
    for name in READINGS[1:]:
        assert chance[name] < raw[name] < perfect[name], name
    assert raw["features"] == 64


def test_rank_tells_what_a_feature_means_from_noise() -> None:
    held_out = planted()
    found = quality_of(detectors(held_out, k=4), held_out)
    first, *_, last = found.bands
    assert first.measures["purity"].value > 0.98
    assert last.measures["purity"].value < 0.6
    assert sum(band.firings for band in found.bands) == pytest.approx(1)


@pytest.fixture(scope="module")
def quality(held_out: HeldOut, language_model: LanguageModel) -> Quality:
    sae = random(16)
    sae.fit_scale(held_out.x)
    scene = Scene(
        held_out,
        {"text": labels_from_text(held_out)},
        Insertion(language_model, HOOKPOINT),
        QualityConfig(features=20, effects=3, shown=2),
    )
    return quality_in(scene, sae, "random")


def test_everything_is_measured_of_a_model_dictionary(quality: Quality) -> None:
    assert set(quality.measures) == {
        *READINGS, "pattern_precision", "pattern_recall", "pattern_f1", "effect_spread", "effect_size", "probe_1",
        "probe_8", "probe_loss",
    }  # fmt: skip
    assert all(not math.isnan(interval.value) for interval in quality.measures.values())
    for name in READINGS:
        interval = quality.measures[name]
        assert interval.low <= interval.value <= interval.high
    assert {band.ranks for band in quality.bands} == {"1", "2", "3"}
    assert len(quality.shown) == 2
    assert {probe.suite for probe in quality.probes} == {"text"}


def test_records_come_back_from_json(quality: Quality) -> None:
    content = json.dumps(quality.to_json(), allow_nan=False)
    back = Quality.from_json(json.loads(content))
    assert json.dumps(back.to_json()) == content
    assert back.measures.keys() == quality.measures.keys()
    assert back.shown[0].contexts[0].tokens == quality.shown[0].contexts[0].tokens


def test_a_dictionary_that_never_fires_is_blank(held_out: HeldOut) -> None:
    sae = SparseAutoencoder(DenseDictionary(16, 4, torch.zeros(4, 16)), TopK(2))
    found = quality_of(sae, held_out, {"first": np.arange(len(held_out.x)) % 2 == 0})
    assert found.eligible == found.firing == 0
    assert all(math.isnan(found.measures[name].value) for name in (*READINGS, "pattern_f1"))
    assert found.shown == []
    json.dumps(found.to_json(), allow_nan=False)


def test_a_dictionary_of_another_width_is_refused(held_out: HeldOut) -> None:
    with pytest.raises(ExpanderError, match="of width 8, but the held-out ones are 16 wide"):
        quality_of(random(8), held_out)


def test_the_same_seed_measures_the_same(held_out: HeldOut) -> None:
    one, two = (quality_of(random(16), held_out, config=QualityConfig(features=10)) for _ in range(2))
    assert one == two or json.dumps(one.to_json()) == json.dumps(two.to_json())


def test_intervals_know_of_features_and_of_documents() -> None:
    generator = np.random.default_rng(0)
    values: NDArray[np.float64] = np.repeat(generator.normal(size=(400, 1)), 11, axis=1)
    of_features = Reading.of(values).interval()
    assert of_features.half_width == pytest.approx(1.96 * values[:, 0].std(ddof=1) / 20)
    values[:, 1:] += generator.normal(size=10)
    assert Reading.of(values).interval().half_width > 2 * of_features.half_width
    values[3] = np.nan
    assert not math.isnan(Reading.of(values).interval().value)


def test_a_jackknife_over_parts_gives_the_standard_error_of_a_mean() -> None:
    generator = np.random.default_rng(0)
    halves = []
    for _ in range(200):
        documents = generator.normal(size=200)
        part = parts_of(np.arange(200), 0)
        without = [documents[part != number].mean() for number in range(10)]
        constant = np.array([[documents.mean(), *without]] * 2)
        halves.append(Reading.of(constant).interval().half_width)
    assert np.sqrt(np.mean(np.square(halves))) == pytest.approx(1.96 / np.sqrt(200), rel=0.1)
