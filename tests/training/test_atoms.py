"""Columns that are mixtures of atoms: they begin as atoms, are made of them while training, and never lose to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.training import Sample, TensorBatches, Trainee, fvu, new_autoencoder, train, width_matched
from expander_sae.training.alphabets import Atoms, _largest_square
from tests.training.failing import Failing, fail
from tests.training.planted import D, K, M, N, config, planted, same_tensors

P = 24
TOKENS = 64 * 60


def composed(**changes: Any) -> xs.TrainConfig:
    settings = {"construction": "learned", "coder": None, "move_every": 4, "atoms": P, "dead_after": 64 * 4}
    return config(**(settings | {"tokens": TOKENS} | changes))


def trainee(x: torch.Tensor, settings: xs.TrainConfig) -> Trainee:
    sample = Sample.of(TensorBatches(x, batch=settings.batch), settings.batch)
    return Trainee(settings, new_autoencoder(settings, sample), sample)


@pytest.fixture(scope="module")
def atoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense dictionary of P columns, trained."""
    folder = tmp_path_factory.mktemp("atoms") / "dense"
    train(planted(4096)[1], config(n=P, d=None, tokens=64 * 100), out=folder, progress=False)
    return folder


def explained(sae: xs.SparseAutoencoder, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float(fvu(x - sae(x), (x - x.mean(dim=0)).square().sum()))


def mixtures(sae: xs.SparseAutoencoder) -> xs.ExpanderDictionary:
    assert isinstance(sae.dictionary, xs.ComposedDictionary)
    return sae.dictionary.mixtures


def test_it_begins_as_the_atoms_of_another_run(atoms: Path) -> None:
    """To the last bit, with all other features silent."""
    _, x = planted(512)
    sae, before = trainee(x, composed(atoms=None, atoms_from=str(atoms))).sae, xs.SparseAutoencoder.load(atoms)
    ours, theirs = sae.with_coder(xs.TopK(K)).encode(x), before.encode(x)
    assert torch.equal(ours.values, theirs.values)
    assert torch.equal(ours.indices[ours.active], theirs.indices[theirs.active])
    assert sae.dictionary.norms().count_nonzero() == P


@pytest.mark.parametrize("start", ["scratch", "run"])
def test_columns_are_made_of_atoms_and_explain_more_than_they(start: str, atoms: Path) -> None:
    _, x = planted(4096)
    given = {"atoms": P} if start == "scratch" else {"atoms": None, "atoms_from": str(atoms)}
    sae = train(x, composed(tokens=64 * 300, **given), progress=False).sae
    rows, values = mixtures(sae).rows, mixtures(sae).values
    degrees = (rows >= 0).sum(dim=1)
    assert int(degrees.sum()) <= N * D
    assert degrees[:P].eq(1).all()
    assert degrees[P:].ge(2).all()
    assert degrees[P:].unique().numel() > 1
    assert values[P:].ne(0).any(dim=1).float().mean() > 0.9
    alone = xs.SparseAutoencoder.load(atoms).with_coder(sae.coder)
    assert explained(sae, x) < explained(alone, x)


def test_atoms_learn_alone_at_first() -> None:
    _, x = planted(4096)
    learner, batches = trainee(x, composed(atoms_alone=0.5)), TensorBatches(x, batch=64)
    while learner.tokens < TOKENS // 2:
        learner.step(next(batches))
        assert mixtures(learner.sae).values[P:].eq(0).all()
    for _ in range(8):
        learner.step(next(batches))
    assert mixtures(learner.sae).values[P:].ne(0).any(dim=1).all()


def test_new_mixtures_are_the_largest_codes_of_their_tokens(atoms: Path) -> None:
    _, x = planted(40)
    sae = trainee(x.repeat(2, 1), composed(atoms=None, atoms_from=str(atoms), batch=64)).sae
    assert isinstance(sae.dictionary, xs.ComposedDictionary)
    alphabet = Atoms(sae.dictionary, signed=False)
    centred = (x * sae.scale - sae.pre_bias).detach()
    rows, values = alphabet.of_tokens(centred, torch.arange(90) % 40, 2 * D, torch.Generator().manual_seed(0))
    assert rows.shape == values.shape == (90, 2 * D)
    columns = torch.zeros(90, P + 1).scatter_add(1, rows.long(), values)[:, :P] @ sae.dictionary.atoms.values
    torch.testing.assert_close(torch.linalg.vector_norm(columns, dim=1), torch.ones(90))
    alike = torch.nn.functional.cosine_similarity(columns, centred[torch.arange(90) % 40])
    assert alike.mean() > 0.35
    assert set((rows < P).sum(dim=1).tolist()) <= set(range(1, 2 * D + 1))
    with torch.no_grad():
        mixtures(sae).place(torch.arange(P, P + 40), torch.where(rows < P, rows, -1)[:40], values[:40])
        bias = alphabet.first_bias(centred, torch.arange(40), torch.arange(P, P + 40))
        own = sae.dictionary.correlate_at(centred, torch.arange(P, P + 40)[:, None])[:, 0]
    assert (own + bias > 0).all()
    assert (own + bias < own).all()


@pytest.mark.parametrize("steps", [9, 29, 50])
def test_a_resumed_run_equals_the_uninterrupted_one(steps: int, tmp_path: Path) -> None:
    """Before columns are made of the atoms, while dead ones begin anew, and after the last pruning."""
    _, x = planted(4096)
    settings = composed(atoms_alone=0.25, checkpoint_every=64 * 4)
    uninterrupted = train(x, settings, progress=False)
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, 256 + steps, fail), settings, out=tmp_path, progress=False)
    resumed = train(TensorBatches(x, batch=64), settings, out=tmp_path, resume=True, progress=False)
    assert same_tensors(resumed.sae, uninterrupted.sae)
    assert torch.equal(mixtures(resumed.sae).rows, mixtures(uninterrupted.sae).rows)
    assert same_tensors(xs.SparseAutoencoder.load(tmp_path), resumed.sae)


@pytest.mark.parametrize("coder", ["omp", "topk"])
def test_other_coders_train_mixtures_too(coder: str) -> None:
    _, x = planted(4096)
    sae = train(x, composed(coder=coder, atoms_alone=0.0, tokens=64 * 100), progress=False).sae
    assert explained(sae, x) < 1
    assert (mixtures(sae).rows >= 0).sum() <= N * D


def test_a_step_over_the_atoms_never_overshoots(atoms: Path) -> None:
    """With one code of one a token, the error falls by a step along what the atoms see."""
    _, x = planted(64)
    sae = trainee(x, composed(atoms=None, atoms_from=str(atoms))).sae
    assert isinstance(sae.dictionary, xs.ComposedDictionary)
    residual = torch.randn(20, M, generator=torch.Generator().manual_seed(0))
    after = residual - Atoms(sae.dictionary, signed=False).seen(residual) @ sae.dictionary.atoms.values
    assert (after.square().sum(dim=1) < residual.square().sum(dim=1)).all()


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 12), st.floats(0, 4))
def test_how_much_atoms_stretch_is_found_near_enough(seed: int, p: int, m: int, skew: float) -> None:
    """Whether all of them point the same way or none does."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(p, m, generator=generator) + skew * torch.randn(m, generator=generator)
    found, exact = _largest_square(values), torch.linalg.matrix_norm(values, 2).square()
    assert 0.6 * exact < found <= 1.001 * exact


def test_a_name_and_a_dense_dictionary_of_as_many_values() -> None:
    settings = xs.TrainConfig(n=1000, d=8, k=4, atoms=100)
    assert settings.name == "learned-d8-atoms100-n1000-candidates4"
    matched = width_matched(settings, 80)
    assert (matched.n, matched.composed, matched.d) == (200, False, None)
    with pytest.raises(xs.ExpanderError, match="say how many"):
        width_matched(xs.TrainConfig(n=1000, d=8, k=4, atoms_from="run"), 80)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"d": None}, "give d, and leave construction"),
        ({"construction": "uniform"}, "give d, and leave construction"),
        ({"signed": True}, "have non-negative codes"),
        ({"atoms": 0}, "atoms must be at least 1"),
        ({"atoms": N + 1}, f"no more atoms than features, {N}"),
        ({"atoms_alone": 1.0}, "a share of the tokens below 1"),
    ],
    ids=str,
)
def test_refuses(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(xs.ExpanderError, match=sentence):
        composed(**change)


def test_refuses_other_atoms(atoms: Path) -> None:
    _, x = planted(512)
    with pytest.raises(xs.ExpanderError, match=f"has {P} columns of width {M}, which cannot be the 30 atoms of"):
        trainee(x, composed(atoms=30, atoms_from=str(atoms)))
    with pytest.raises(xs.ExpanderError, match=f"has {P} columns of width {M}, which cannot be the atoms of 20 feat"):
        trainee(x, composed(atoms=None, n=20, atoms_from=str(atoms)))
