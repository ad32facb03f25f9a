"""Activations straight from the model: those of a store in another order, the same again whenever one goes on."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expander_sae import ExpanderError, SparseAutoencoder
from expander_sae.activations.distributed import activations_of
from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.live import LiveActivations
from expander_sae.activations.models import LanguageModel, load_language_model
from expander_sae.activations.windows import WindowedText
from expander_sae.distribution import Group
from expander_sae.training import BatchSource, TrainConfig, train
from tests.activations.prose import write_prose
from tests.training.planted import same_tensors


@pytest.fixture
def language_model(tiny_model_folder: Path) -> LanguageModel:
    return load_language_model(tiny_model_folder, device="cpu")


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_prose(tmp_path)


def live(language_model: LanguageModel, text: TextConfig, **changes: object) -> LiveActivations:
    options = {"batch": 32, "window": 400, "seed": 3}
    return LiveActivations(language_model, "layers.1", text, **{**options, **changes})  # type: ignore[arg-type]


def taken(source: BatchSource, batches: int) -> list[Tensor]:
    return [next(source) for _ in range(batches)]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def rows(tensors: list[Tensor]) -> Counter[bytes]:
    """How often each activation is there, to the bit."""
    return Counter(row.numpy().tobytes() for tensor in tensors for row in tensor)


def everything(language_model: LanguageModel, text: TextConfig) -> list[Tensor]:
    """What the model computes for every token of the text, batch by batch."""
    source = live(language_model, text, window=10**6)
    _, batches = WindowedText(language_model, text, 10**6).window(source._window.place)
    return [activations_of(language_model, [source._hookpoint], batch)[source._hookpoint] for batch in batches]


def test_an_epoch_holds_every_token_once(language_model: LanguageModel, text: TextConfig) -> None:
    whole = everything(language_model, text)
    tokens = sum(map(len, whole))
    source = live(language_model, text, batch=1)
    first, second = taken(source, tokens), taken(source, tokens)
    assert rows(first) == rows(second) == rows(whole)
    assert not same(first, second)
    assert not same(first, list(torch.split(torch.cat(whole), 1)))
    assert isinstance(source, BatchSource)


def test_the_order_is_that_of_the_seed(language_model: LanguageModel, text: TextConfig) -> None:
    ours = taken(live(language_model, text), 40)
    assert same(ours, taken(live(language_model, text), 40))
    assert not same(ours, taken(live(language_model, text, seed=4), 40))


@pytest.mark.parametrize("window", [1, 100, 10**6])
def test_any_window_gives_full_batches(language_model: LanguageModel, text: TextConfig, window: int) -> None:
    assert {len(batch) for batch in taken(live(language_model, text, window=window), 70)} == {32}


@pytest.mark.parametrize("at", [0, 1, 11, 12, 13, 60, 137])
def test_going_on_from_a_state_gives_the_same_batches(language_model: LanguageModel, text: TextConfig, at: int) -> None:
    source = live(language_model, text)
    taken(source, at)
    state = json.loads(json.dumps(source.state_dict()))
    expected = taken(source, 30)
    another = live(language_model, text)
    another.load_state_dict(state)
    assert same(taken(another, 30), expected)
    assert another.massive_above == source.massive_above
    source.load_state_dict(state)
    assert same(taken(source, 30), expected)


def test_going_back_within_a_window_computes_nothing_again(
    language_model: LanguageModel, text: TextConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = live(language_model, text, window=10**6)
    state = source.state_dict()
    expected = taken(source, 3)
    monkeypatch.setattr("expander_sae.activations.windows.activations_of", None)
    source.load_state_dict(state)
    assert same(taken(source, 3), expected)


def test_the_next_window_is_computed_bit_by_bit(
    language_model: LanguageModel, text: TextConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no step but the first waits for long, and a run can be stopped at any time."""
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return activations_of(*arguments)

    monkeypatch.setattr("expander_sae.activations.windows.activations_of", counted)
    source, after = live(language_model, text, window=1000), [0]
    for _ in range(100):
        next(source)
        after.append(calls)
    steps = [later - earlier for earlier, later in pairwise(after)]
    assert steps[0] >= 8
    assert max(steps[1:]) <= 2


def test_massive_tokens_are_left_out(language_model: LanguageModel, text: TextConfig) -> None:
    bad = language_model.tokenizer("The river and the bridge", add_special_tokens=False)["input_ids"][-1]
    language_model.model.get_input_embeddings().weight.data[bad] *= 1000
    whole = torch.cat(everything(language_model, text))
    norms = torch.linalg.vector_norm(whole, dim=1, dtype=torch.float64)
    kept = norms <= 4 * norms.quantile(0.5)
    assert 0 < int((~kept).sum()) < len(kept) // 2
    source = live(language_model, text, batch=1, window=10**6)
    assert source.massive_above is None
    assert rows(taken(source, int(kept.sum()))) == rows([whole[kept]])
    assert source.massive_above == pytest.approx(4 * float(norms.quantile(0.5)))
    assert source.origin["massive_above"] == source.massive_above


def test_the_threshold_is_the_stores(language_model: LanguageModel, text: TextConfig, tmp_path: Path) -> None:
    store = harvest(language_model, ["layers.1"], tokens=10**6, out=tmp_path / "acts", text=text)["layers.1"]
    source = live(language_model, text, window=10**6)
    next(source)
    assert source.massive_above == pytest.approx(store.massive_above, rel=1e-3)
    assert {**source.origin, "median_norm": 0, "massive_above": 0} == {
        **store.origin, "median_norm": 0, "massive_above": 0,
    }  # fmt: skip


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_of_one(language_model: LanguageModel, text: TextConfig, world: int) -> None:
    """Ranks without messages: each is told the norms that the others would have sent."""
    alone = live(language_model, text)
    batches = taken(alone, 70)

    class Told(Group):
        """Adds up as if the other processes were there."""

        def add_up(self, tensor: Tensor) -> Tensor:
            others = [batch for number, batch in enumerate(source._window._batches)]
            found = [activations_of(language_model, [source._hookpoint], batch)[source._hookpoint] for batch in others]
            return torch.linalg.vector_norm(torch.cat(found), dim=1, dtype=torch.float64)

        def words(self, own: str) -> list[str]:
            return [own] * self.world

    shares = []
    for rank in range(world):
        source = live(language_model, text, group=Told(rank, world))
        shares.append(taken(source, 70))
        assert source.state_dict() == alone.state_dict()
    for number, batch in enumerate(batches):
        assert rows([share[number] for share in shares]) == rows([batch])


def test_a_token_that_is_not_finite_is_named(language_model: LanguageModel, text: TextConfig) -> None:
    bad = language_model.tokenizer("The river and the bridge", add_special_tokens=False)["input_ids"][-1]
    language_model.model.get_input_embeddings().weight.data[bad] = torch.nan
    # A batch has its longest pieces first, and document 1 has the first one that fills a context.
    first = language_model.tokenizer("The river and the bridge, number " * 2, add_special_tokens=False)["input_ids"]
    place = f"position {first.index(bad)} of document 1"
    expected = rf"The activation at embed_tokens of 'e' \(id {bad}\), {place} of the text, has NaN"
    with pytest.raises(ExpanderError, match=expected):
        next(LiveActivations(language_model, "embed_tokens", text, batch=4))


def test_a_text_shorter_than_a_context_or_a_batch_is_enough(language_model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("The old bridge.")
    short = TextConfig(str(tmp_path / "short.txt"), part="all", context=64, tokens_per_batch=128)
    tokens = sum(map(len, everything(language_model, short)))
    assert tokens < 32
    assert rows(taken(live(language_model, short), tokens)) == Counter(
        {row: 32 * count for row, count in rows(everything(language_model, short)).items()}
    )
    store = harvest(language_model, ["layers.1"], tokens=100, out=tmp_path / "acts", text=short)["layers.1"]
    assert store.tokens == tokens


def test_an_empty_text_is_refused(language_model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    empty = TextConfig(str(tmp_path / "empty.txt"), part="all", context=64)
    with pytest.raises(ExpanderError, match="There is no text in"):
        live(language_model, empty)
    with pytest.raises(ExpanderError, match="There is no text in"):
        harvest(language_model, ["layers.1"], tokens=100, out=tmp_path / "acts", text=empty)


@pytest.mark.parametrize(
    ("hookpoint", "changes", "sentence"),
    [
        ("layers.9", {}, "No module of the model matches 'layers.9'"),
        ("layers.*.mlp", {}, r"Training reads one hookpoint, but layers\.\*\.mlp matches 3"),
        ("layers.1", {"batch": 0}, "batch must be at least 1, not 0."),
        ("layers.1", {"window": 0}, "window must be at least 1, not 0."),
        ("layers.1", {"seed": -1}, "The seed must be from 0"),
    ],
)
def test_impossible_sources(
    language_model: LanguageModel, text: TextConfig, hookpoint: str, changes: dict[str, int], sentence: str
) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        LiveActivations(language_model, hookpoint, text, **{"batch": 4, **changes})  # type: ignore[arg-type]


def test_a_context_longer_than_the_models_is_refused(language_model: LanguageModel, text: TextConfig) -> None:
    with pytest.raises(ExpanderError, match="longer than the 64"):
        live(language_model, dataclasses.replace(text, context=65))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [({"seed": 4}, "with seed 3, not 4"), ({"batch": 8}, "with batch 32, not 8"), ({"window": 8}, "with window 400")],
)
def test_a_state_of_other_batches_is_refused(
    language_model: LanguageModel, text: TextConfig, changes: dict[str, int], difference: str
) -> None:
    state = live(language_model, text).state_dict()
    with pytest.raises(ExpanderError, match=f"{difference}.*resume with the same model, text and settings"):
        live(language_model, text, **changes).load_state_dict(state)


def test_a_text_that_has_changed_is_refused(language_model: LanguageModel, text: TextConfig) -> None:
    source = live(language_model, text)
    taken(source, 60)
    state, file = source.state_dict(), Path(text.text)
    assert state["batch"] > 0
    whole = file.read_text()
    file.write_text(whole.replace("river", "brook"))
    with pytest.raises(ExpanderError, match="is not the text that it was when the run was saved"):
        live(language_model, text).load_state_dict(state)
    file.write_text(whole.splitlines()[0])
    with pytest.raises(ExpanderError, match=r"has 1 batches of text where there were \d+ and more: it has changed"):
        live(language_model, text).load_state_dict(state)


SETTINGS = TrainConfig(
    n=32, d=4, k=3, objective="fidelity", tokens=32 * 60, batch=32, checkpoint_every=32 * 7, log_every=5
)


class Mortal(LiveActivations):
    """Fails instead of giving a batch of a certain number."""

    left = -1

    def __next__(self) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("the power went out")
        return super().__next__()


@pytest.mark.parametrize("steps", [3, 17, 44])
def test_a_resumed_run_equals_the_uninterrupted_one(
    language_model: LanguageModel, text: TextConfig, tmp_path: Path, steps: int
) -> None:
    whole = train(live(language_model, text), SETTINGS, progress=False)
    mortal = Mortal(language_model, "layers.1", text, batch=32, window=400, seed=3)
    mortal.left = 16_384 // 32 + 7 + steps
    with pytest.raises(RuntimeError, match="power"):
        train(mortal, SETTINGS, out=tmp_path, progress=False)
    resumed = train(live(language_model, text), SETTINGS, out=tmp_path, resume=True, progress=False)
    assert same_tensors(resumed.sae, whole.sae)
    assert resumed.sae.provenance["activations"] == whole.sae.provenance["activations"]
    kept = SparseAutoencoder.load(tmp_path).provenance["activations"]
    assert kept["hookpoint"] == "layers.1"
    assert kept["text"] == text.text
    assert kept["massive_above"] > 0
