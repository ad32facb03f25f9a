"""A session keeps what it has done: a second run measures only what is new, and refuses what does not belong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from expander_sae import SparseAutoencoder
from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import LanguageModel
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import QualityConfig
from expander_sae.evaluation.quality.judge.client import Judge
from expander_sae.evaluation.quality.sequences import Sequences, SequenceTask, sae_probes_tasks
from expander_sae.evaluation.quality.session import HELD_OUT, MEASURED, Plan, Session
from expander_sae.evaluation.setting import Setting
from tests.evaluation.quality.conftest import HOOKPOINT
from tests.evaluation.quality.judge_server import agreeable, judge_server
from tests.evaluation.subjects import random

PLAN = Plan(tokens=3000, config=QualityConfig(features=8, effects=2, shown=1))


@dataclasses.dataclass
class Runs:
    """Sessions in one folder, and what each of them has done."""

    language_model: LanguageModel
    text: TextConfig
    folder: Path | None

    def session(self, plan: Plan = PLAN, again: bool = False, m: int = 16, **saes: SparseAutoencoder) -> Session:
        """With these dictionaries, or two of always the same."""
        self.did = list[str]()
        saes = saes or {"one": random(m), "two": random(m, seed=1)}
        return Session(
            saes,
            self.language_model,
            Setting.of(saes, self.language_model, "layers.1", self.text),
            plan,
            again={"one": random(m, seed=2)} if again else None,
            folder=self.folder,
            report=lambda what, done, total: None if what in self.did else self.did.append(what),
        )


@pytest.fixture
def runs(language_model: LanguageModel, text: TextConfig, tmp_path: Path) -> Runs:
    return Runs(language_model, text, tmp_path / "out")


def test_what_was_measured_is_not_measured_again(runs: Runs) -> None:
    first = runs.session().qualities()
    assert [each.name for each in first] == ["one", "two", "raw coordinates", "random contexts"]
    assert {"reading the text", "one", "two", "raw coordinates"} <= set(runs.did)
    second = runs.session().qualities()
    assert runs.did == []
    assert json.dumps([each.to_json() for each in first]) == json.dumps([each.to_json() for each in second])
    runs.session(one=random(16), two=random(16, seed=5)).qualities()
    assert "two" in runs.did
    assert "one" not in runs.did


def test_a_killed_run_goes_on(runs: Runs) -> None:
    assert runs.folder is not None
    runs.session().qualities()
    (runs.folder / MEASURED / "two.json").write_text("{")
    runs.session().qualities()
    assert "two" in runs.did
    assert not {"one", "reading the text"} & set(runs.did)


def test_other_questions_are_asked_anew(runs: Runs) -> None:
    runs.session().qualities()
    runs.session(dataclasses.replace(PLAN, config=dataclasses.replace(PLAN.config, seed=1))).qualities()
    assert {"one", "two"} <= set(runs.did)
    with pytest.raises(ExpanderError, match="another text"):
        runs.session(dataclasses.replace(PLAN, tokens=2000))


def test_nothing_is_kept_without_a_folder(runs: Runs, tmp_path: Path) -> None:
    runs.folder = None
    found = runs.session(dataclasses.replace(PLAN, baselines=False)).qualities()
    assert [each.name for each in found] == ["one", "two"]
    assert not list(tmp_path.iterdir())


def test_a_dictionary_of_another_width_is_refused_before_anything_is_measured(runs: Runs) -> None:
    with pytest.raises(ExpanderError, match="one is for activations of width 8"):
        runs.session(m=8)


def test_another_seed_is_compared(runs: Runs) -> None:
    one, two, *_ = runs.session(again=True).qualities()
    assert 0 <= one.measures["columns_found_again"].value <= 1
    assert 0 <= one.measures["firings_found_again"].value <= 1
    assert "columns_found_again" not in two.measures


def test_a_judge_that_fails_loses_nothing(runs: Runs, tmp_path: Path) -> None:
    answers = tmp_path / "judge.jsonl"
    left = iter(range(6))
    with judge_server(lambda prompt: agreeable(prompt) if next(left, None) is not None else 500) as server:
        session = runs.session()
        qualities = session.qualities()
        judge = Judge(server.url, "small", answers, sleep=lambda seconds: None)
        with pytest.raises(ExpanderError, match="6 answers are kept"):
            session.judged(judge, 2, qualities, lambda what, done, total: None)
        server.answer = agreeable
        judge = Judge(server.url, "small", answers)
        session = runs.session()
        found = session.judged(judge, 2, session.qualities(), lambda what, done, total: None)
    assert runs.did == []
    assert [each.judged["judge_coherence"].value for each in found[:2]] == [4, 4]
    assert not found[2].judged


def write_suite(folder: Path) -> None:
    """Files as the package has them: one task of two kinds, one of three, one too small."""
    rows = [f"{'river' if number % 2 else 'bridge'} number {number},{number % 2}" for number in range(60)]
    (folder / "7_water.csv").write_text("\n".join(["prompt,target", *rows]))
    (folder / "8_three.csv").write_text("\n".join(["prompt,target", "a,1", "b,2", "c,3"]))
    (folder / "9_small.csv").write_text("\n".join(["prompt,target", "a,1", "b,2"]))


def test_tasks_of_two_kinds_are_taken(tmp_path: Path) -> None:
    write_suite(tmp_path)
    (task,) = sae_probes_tasks(5, 40, 0, tmp_path)
    assert task.name == "7_water"
    assert len(task.texts) == 40
    assert [text.startswith("river") for text in task.texts] == task.truth.tolist()
    assert task.truth.sum() == 20
    (tmp_path / "7_water.csv").unlink()
    with pytest.raises(ExpanderError, match="no texts of two kinds"):
        sae_probes_tasks(5, 40, 0, tmp_path)


def test_last_tokens_are_read_without_padding(language_model: LanguageModel, tmp_path: Path) -> None:
    texts = ["The river", "The river and the bridge, number 3", "number"]
    task = SequenceTask("a", texts, np.array([True, False, True]))
    read = Sequences.read(language_model, HOOKPOINT, [task], tmp_path / "a.safetensors")
    for text, found in zip(texts, read.activations[0], strict=True):
        ids = language_model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = language_model.model(input_ids=ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(found, states[2][0, -1], rtol=1e-4, atol=1e-5)
    again = Sequences.read(language_model, HOOKPOINT, [task], tmp_path / "a.safetensors")
    assert torch.equal(again.activations[0], read.activations[0])


def test_labelled_texts_are_probed(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_suite(tmp_path)
    monkeypatch.setattr("expander_sae.evaluation.quality.sequences._installed", lambda: tmp_path)
    plan = dataclasses.replace(PLAN, sequences=1, sequence_texts=60)
    one, *_, raw, chance = runs.session(plan).qualities()
    for found in (one, raw):
        (probe,) = [probe for probe in found.probes if probe.suite == "sae-probes"]
        assert probe.label == "7_water"
        assert 0 <= found.measures["text_probe_auc"].value <= 1
    assert "text_probe_auc" not in chance.measures
    runs.session(plan).qualities()
    assert runs.did == []


def test_a_suite_that_is_not_installed_is_a_sentence(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expander_sae.evaluation.quality.sequences.find_spec", lambda name: None)
    with pytest.raises(ExpanderError, match="pip install --no-deps sae-probes"):
        runs.session(dataclasses.replace(PLAN, sequences=3))
    assert runs.folder is not None
    assert not (runs.folder / HELD_OUT).exists()
