"""Learned rows: chosen where tokens are large, moved to the least-squares optimum, and found again when planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import expander_sae as xs
from expander_sae.distribution import Group
from expander_sae.training import Sample, TensorBatches, Trainee, new_autoencoder, rows_of_largest, train
from expander_sae.training.learner import MOST_LIVING
from expander_sae.training.rows import (
    FEWEST,
    ColumnMoves,
    Wanted,
    afforded,
    high_loss_tokens,
    moved_columns,
    place_columns,
    wanted_entries,
)
from tests.training.failing import Failing, fail
from tests.training.planted import N, config, planted, same_tensors


def learned(**changes: Any) -> xs.TrainConfig:
    return config(**({"construction": "learned", "coder": None, "objective": "fidelity", "move_every": 4} | changes))


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(1, 20),
    m=st.integers(1, 15),
    n=st.integers(1, 60),
    d=st.integers(1, 15),
)
def test_chosen_rows_are_sound(seed: int, tokens: int, m: int, n: int, d: int) -> None:
    d = min(d, m)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, m, generator=generator)
    rows, values = rows_of_largest(x, torch.rand(m, generator=generator), n, d)
    xs.Support.from_rows(rows, m)
    assert torch.equal(rows, rows.sort(dim=1).values)
    torch.testing.assert_close(torch.linalg.vector_norm(values, dim=1), torch.ones(n))


def test_chosen_rows_are_the_largest_and_later_columns_take_what_is_left() -> None:
    x = torch.tensor([[5.0, -4.0, 3.0, 2.0, 1.0, 0.5]])
    rows, values = rows_of_largest(x, torch.ones(6), 3, 2)
    assert rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    torch.testing.assert_close(values[0], torch.tensor([5.0, -4.0]) / 41**0.5)


def test_large_spread_counts_for_less() -> None:
    x = torch.tensor([[5.0, 4.0]])
    assert rows_of_largest(x, torch.tensor([1.0, 1.0]), 1, 1)[0].tolist() == [[0]]
    assert rows_of_largest(x, torch.tensor([4.0, 1.0]), 1, 1)[0].tolist() == [[1]]


def test_zero_tokens_make_columns_too() -> None:
    _, values = rows_of_largest(torch.zeros(2, 4), torch.zeros(4), 5, 2)
    torch.testing.assert_close(torch.linalg.vector_norm(values, dim=1), torch.ones(5))


def _moves_one_by_one(rows: Tensor, values: Tensor, codes: xs.Codes, residual: Tensor) -> dict[int, list[int]]:
    """Where columns go, by the definition, with dense columns."""
    dense = codes.to_dense()
    places = {}
    for feature in range(len(rows)):
        fired = dense[:, feature] != 0
        if int(fired.sum()) < FEWEST:
            continue
        change = (dense[:, feature] @ residual) / dense[:, feature].square().sum()
        change[rows[feature].long()] = values[feature]
        places[feature] = sorted(change.abs().topk(rows.shape[1]).indices.tolist())
    return places


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 5))
def test_moves_are_those_of_the_definition(seed: int, d: int) -> None:
    m, n, k, tokens = 9, 12, 3, 40
    generator = torch.Generator().manual_seed(seed)
    support = xs.Support.make("uniform", m=m, n=n, d=d, seed=seed)
    values = torch.randn(n, d, generator=generator).double()
    indices = torch.rand(tokens, n, generator=generator).topk(k).indices
    weights = torch.rand(tokens, k, generator=generator).double() * (torch.rand(tokens, k, generator=generator) > 0.3)
    codes = xs.Codes(weights, indices, n)
    residual = torch.randn(tokens, m, generator=generator).double()
    expected = _moves_one_by_one(support.rows, values, codes, residual)
    found = {}
    wanted = wanted_entries(support.rows, values, codes, residual, Group())
    moved = moved_columns(support.rows, values, wanted, torch.ones(n, d, dtype=torch.bool), m)
    norms = torch.linalg.vector_norm(moved.values, dim=1)
    torch.testing.assert_close(norms, torch.linalg.vector_norm(values, dim=1))
    for feature in range(n):
        found[feature] = moved.rows[feature].tolist()
        before = support.rows[feature].tolist()
        for slot, source in enumerate(moved.source[feature].tolist()):
            assert (source >= 0) == (found[feature][slot] in before)
            if source >= 0:
                assert before[source] == found[feature][slot]
    assert found == {feature: expected.get(feature, support.rows[feature].tolist()) for feature in range(n)}


def test_threads_do_not_change_what_columns_want() -> None:
    m, n, k, tokens, generator = 96, 500, 4, 3000, torch.Generator().manual_seed(0)
    support = xs.Support.make("uniform", m=m, n=n, d=8, seed=0)
    values = torch.randn(n, 8, generator=generator)
    codes = xs.Codes(
        torch.rand(tokens, k, generator=generator), torch.rand(tokens, n, generator=generator).topk(k).indices, n
    )
    residual = torch.randn(tokens, m, generator=generator)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(wanted_entries(support.rows, values, codes, residual, Group()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 5), n=st.integers(1, 12), budget=st.integers(1, 80))
def test_of_equal_entries_the_budget_buys_the_first(seed: int, d: int, n: int, budget: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 3, (n, d), generator=generator).double()
    rows = torch.where(torch.rand(n, d, generator=generator) < 0.8, torch.arange(d), 9)
    whole = torch.randperm(n, generator=generator)[: n // 3]
    kept = afforded(Wanted(rows, values, torch.ones(n)), torch.ones(n), 9, budget, 1, whole)
    worth = values.square()
    worth[whole], worth[:, 0] = torch.inf, torch.inf
    there = (rows < 9).flatten().nonzero()[:, 0].tolist()
    expected = sorted(there, key=lambda entry: (-float(worth.flatten()[entry]), entry))[:budget]
    assert kept.flatten().nonzero()[:, 0].tolist() == sorted(expected)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 5), tied=st.booleans())
def test_what_is_remembered_of_entries_moves_with_them(seed: int, d: int, tied: bool) -> None:
    m, n, generator = 9, 12, torch.Generator().manual_seed(seed)
    support = xs.Support.make("uniform", m=m, n=n, d=d, seed=seed)
    dictionaries = [
        xs.ExpanderDictionary(support, torch.randn(n, d, generator=generator)) for _ in range(1 if tied else 2)
    ]
    parameters = [each.values for each in dictionaries]
    adam = torch.optim.Adam(parameters)
    for parameter in parameters:
        adam.state[parameter] = {name: torch.rand(n, d, generator=generator) for name in ("exp_avg", "exp_avg_sq")}
    averages: dict[nn.Parameter, Tensor] = {parameters[0]: torch.rand(n, d, generator=generator)}
    features = torch.randperm(n, generator=generator)[: n // 2].sort().values
    rows, values = support.rows[features], parameters[0].detach()[features]
    # Some want what they have, at the values that it has, and of these some begin anew there.
    wanted = torch.where(
        torch.rand(len(features), 1, generator=generator) < 0.5,
        rows.long(),
        torch.rand(len(features), m, generator=generator).argsort(dim=1)[:, :d],
    )
    amounts = torch.randn(len(features), m, generator=generator).scatter(1, rows.long(), values).gather(1, wanted)
    kept = torch.rand(wanted.shape, generator=generator) < 0.8
    kept[:, 0] = True
    moved = moved_columns(rows, values, Wanted(wanted, amounts, torch.ones(len(features))), kept, m)
    moved.source[torch.rand(len(features), generator=generator) < 0.3] = -1

    tensors = [[each.values.detach().clone(), *adam.state[each.values].values()] for each in dictionaries]
    tensors[0].append(averages[parameters[0]])
    before = [[each.clone() for each in own] for own in tensors]
    place_columns(dictionaries, features, moved, adam, averages)
    for dictionary, own, old in zip(dictionaries, tensors, before, strict=True):
        own[0] = dictionary.values.detach()
        expected = [each.clone() for each in old]
        for place, feature in enumerate(features.tolist()):
            for slot, (row, source) in enumerate(zip(moved.rows[place], moved.source[place], strict=True)):
                stays, there, mine = int(source) >= 0, int(row) >= 0, moved.values[place, slot]
                usual = old[2][feature].mean()
                value = mine if not stays or dictionary is dictionaries[0] else old[0][feature, source]
                entry = [value, old[1][feature, source] if stays else 0, old[2][feature, source] if stays else usual]
                entry += [old[3][feature, source] if stays else mine] if len(own) > 3 else []
                for tensor, number in zip(expected, entry, strict=True):
                    tensor[feature, slot] = number if there else 0
        torch.testing.assert_close(own, expected)
        assert torch.equal(dictionary.rows[features], moved.rows)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 10**6), d=st.integers(1, 6), n=st.integers(1, 12))
def test_the_budget_buys_what_is_worth_most(data: st.DataObject, seed: int, d: int, n: int) -> None:
    m, generator = 9, torch.Generator().manual_seed(seed)
    values = torch.rand(n, d, generator=generator).sort(dim=1, descending=True).values
    degrees = torch.randint(1, d + 1, (n, 1), generator=generator)
    there = torch.arange(d) < degrees
    wanted = Wanted(torch.where(there, torch.arange(d), m), values * there, torch.rand(n, generator=generator))
    least, whole = data.draw(st.integers(1, d)), torch.arange(data.draw(st.integers(0, n)))
    forced = there & ((torch.arange(d) < least) | (torch.arange(n)[:, None] < len(whole)))
    budget = data.draw(st.integers(int(forced.sum()), int(there.sum())))
    kept = afforded(wanted, wanted.energy, m, budget, least, whole)
    assert int(kept.sum()) == budget
    assert not (kept & ~there).any()
    assert (kept | ~forced).all()
    worth = wanted.values.square() * wanted.energy[:, None]
    left, bought = worth[there & ~kept], worth[kept & ~forced]
    assert not len(left) or not len(bought) or bought.min() >= left.max()


def test_frequent_columns_grow_and_the_budget_stays() -> None:
    _, x = planted(4096)
    run = train(x, learned(tokens=64 * 60, move_until=1.0), progress=False)
    dictionary = run.sae.dictionary
    assert isinstance(dictionary, xs.ExpanderDictionary)
    degrees = dictionary.support.degrees
    assert dictionary.learned_values == run.config.entries
    assert run.config.lengths.least <= degrees.min() < degrees.max() <= run.config.lengths.longest(x.shape[1])
    assert not dictionary.values[dictionary.rows < 0].any()
    even = train(x, learned(tokens=64 * 60, move_until=1.0, stretch=1), progress=False)
    assert isinstance(even.sae.dictionary, xs.ExpanderDictionary)
    assert even.sae.dictionary.support.is_even


def test_high_loss_tokens_are_distinct_while_there_are_enough() -> None:
    residual = torch.diag(torch.tensor([1.0, 2.0, 0.0, 3.0]))
    generator = torch.Generator().manual_seed(0)
    drawn = high_loss_tokens(residual, 3, generator)
    assert sorted(drawn.sum(dim=1).tolist()) == [1.0, 2.0, 3.0]
    assert len(high_loss_tokens(residual, 10, generator)) == 10


def test_planted_supports_are_found() -> None:
    true, x = planted(8192)
    assert isinstance(true, xs.ExpanderDictionary)
    run = train(x, learned(tokens=64 * 600, n=2 * N, move_every=10, stretch=1), progress=False)
    found = {tuple(rows) for rows in run.sae.dictionary.get_buffer("rows").tolist()}
    share = sum(tuple(rows) in found for rows in true.rows.tolist()) / N
    fixed = train(x, learned(tokens=64 * 600, n=2 * N, construction="uniform"), progress=False)
    assert share > 0.5
    assert run.metrics[-1]["fvu"] < 0.3 * fixed.metrics[-1]["fvu"]


@pytest.mark.parametrize(
    "changes", [{}, {"coder": "topk"}, {"coder": "topk", "tied": False}, {"coder": "mp"}, {"average": 0.9}], ids=str
)
def test_a_resumed_run_equals_the_uninterrupted_one(changes: dict[str, Any], tmp_path: Path) -> None:
    _, x = planted(2048)
    whole = learned(tokens=64 * 24, checkpoint_every=64 * 6, dead_after=64 * 3, **changes)
    expected = train(x, whole, progress=False)

    sampled = 256  # batches that the start reads to get to know the data
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, sampled + 21, fail), whole, out=tmp_path / "run", progress=False)
    resumed = train(TensorBatches(x, batch=64), whole, out=tmp_path / "run", resume=True, progress=False)
    assert same_tensors(resumed.sae, expected.sae)
    assert torch.equal(resumed.sae.dictionary.get_buffer("rows"), expected.sae.dictionary.get_buffer("rows"))


def test_learned_rows_are_saved_and_loaded(tmp_path: Path) -> None:
    _, x = planted(2048)
    run = train(x, learned(), out=tmp_path / "run", progress=False)
    loaded = xs.SparseAutoencoder.load(tmp_path / "run")
    assert isinstance(loaded.dictionary, xs.ExpanderDictionary)
    assert loaded.dictionary.support.is_stored
    assert torch.equal(loaded(x[:50]), run.sae(x[:50]))


def test_untied_values_stay_on_the_dictionarys_rows() -> None:
    _, x = planted(2048)
    run = train(x, learned(coder="topk", tied=False, dead_after=64 * 2), progress=False)
    assert torch.equal(run.sae.dictionary.get_buffer("rows"), run.sae.encoder.get_buffer("rows"))


@pytest.mark.parametrize("coder", ["omp", "topk"])
def test_dead_columns_begin_anew(coder: str) -> None:
    _, x = planted(4096)
    few = {"n": 4 * N, "tokens": 64 * 200, "auxk": 0.0, "lift": 0.0, "dead_after": 64 * 10, "coder": coder}
    moving = train(x, learned(**few), progress=False)
    still = train(x, learned(**few, move_until=0.0), progress=False)
    assert moving.metrics[-1]["fvu"] < still.metrics[-1]["fvu"]


def _one_move(n: int, rows_of_window: int) -> tuple[Trainee, Tensor, Tensor]:
    """A trainee after a move in whose window so many tokens are not zero; who was dead, and who began anew."""
    run = learned(n=n, coder="topk", tokens=64 * 4, dead_after=1, auxk=0.0, lift=0.0)
    batches = TensorBatches(planted(2048)[1], batch=64)
    sample = Sample.of(batches, 64)
    trainee = Trainee(run, new_autoencoder(run, sample), sample)
    for _ in range(3):
        trainee.step(next(batches))
    assert isinstance(trainee.moves, ColumnMoves)
    trainee.moves.residual.flatten(0, 1)[rows_of_window:] = 0.0
    dead = trainee.record.dead.nonzero()[:, 0]
    with torch.no_grad():
        return trainee, dead, trainee.moves.move(3, dead, trainee.descent.adam, {})


@settings(deadline=None, max_examples=10)
@given(n=st.integers(N, 40 * N), tokens=st.integers(1, 128))
def test_of_very_many_dead_columns_one_begins_anew_for_every_token(n: int, tokens: int) -> None:
    trainee, dead, begun = _one_move(n, tokens)
    assert len(begun) == min(len(dead), tokens)
    assert torch.isin(begun, dead).all()
    assert len(begun.unique()) == len(begun)
    assert isinstance(trainee.sae.dictionary, xs.ExpanderDictionary)
    values = torch.cat([trainee.sae.dictionary.rows[begun], trainee.sae.dictionary.values.detach()[begun]], dim=1)
    assert len(values.unique(dim=0)) == len(begun), "no two of them are copies"


def test_dead_columns_that_wait_stay_as_they_are() -> None:
    trainee, dead, begun = _one_move(40 * N, 50)
    fresh, _, others = _one_move(40 * N, 0)
    assert len(others) == 0
    waiting = dead[~torch.isin(dead, begun)]
    assert len(waiting) > 30 * N
    for ours, theirs in zip(trainee.sae.parameters(), fresh.sae.parameters(), strict=True):
        if len(ours) == 40 * N:
            assert torch.equal(ours[waiting], theirs[waiting])
    assert waiting[0] < 40 * N * 0.1, "they and those that begin are spread over all"
    assert begun[-1] > 40 * N * 0.9


def test_the_rate_counts_no_more_columns_than_may_live() -> None:
    rates = [_peak(n=n, coder="topk") for n in (MOST_LIVING // 2, MOST_LIVING, 4 * MOST_LIVING)]
    assert rates[0] > rates[1] == rates[2]
    for others in (
        {"coder": None},
        {"coder": None, "objective": "readable"},
        {"coder": "topk", "construction": "uniform"},
    ):
        assert _peak(n=4 * MOST_LIVING, **others) < _peak(n=MOST_LIVING, **others)


def _peak(**changes: Any) -> float:
    """The rate that such a run comes to."""
    run = learned(**changes)
    batches = TensorBatches(planted(256)[1], batch=64)
    sample = Sample.of(batches, 64)
    return Trainee(run, new_autoencoder(run, sample), sample).descent.peak


def test_fidelity_is_pursuit_on_learned_rows() -> None:
    sparse, dense = xs.TrainConfig(n=64, d=4, k=2, objective="fidelity"), xs.TrainConfig(n=64, k=2)
    assert (sparse.coding, sparse.learns_rows, sparse.unit_columns) == ("omp", True, True)
    assert (dense.coding, dense.learns_rows, dense.unit_columns) == ("topk", False, False)
    assert sparse.name == "learned-d4-n64-omp2"


@pytest.mark.parametrize("change", [{"move_every": 0}, {"move_until": 1.5}, {"construction": "taught"}], ids=str)
def test_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(xs.ExpanderError, match=next(iter(change))):
        learned(**change)


def test_columns_that_nobody_asks_for_stay_as_they_are() -> None:
    support = xs.Support.make("uniform", m=8, n=4, d=2, seed=0)
    values = torch.rand(4, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    codes = xs.Codes(torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.int32), 4)  # fewer firings than a move asks for
    assert len(codes.values) < FEWEST
    wanted = wanted_entries(support.rows, values, codes, torch.ones(3, 8), Group())
    largest = values.sort(dim=1, descending=True, stable=True)
    assert torch.equal(wanted.values, largest.values)
    assert torch.equal(wanted.rows, support.rows.long().gather(1, largest.indices))
