"""One process of four, for `test_shards`: codes, training and checkpoints with the features in shards.

The argument is the folder: it holds a checkpoint that one process left in `one`, and gets what was found.
"""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from expander_sae import ExpanderDictionary, Support
from expander_sae.dictionaries import Shard
from expander_sae.distribution import Group, grid_of
from expander_sae.training import TensorBatches, joined, train
from tests.training.failing import Failing, fail
from tests.training.planted import planted
from tests.training.sharded import FAILS, RUNS, SAMPLED, sharded


def codes_are_those_of_one_process(group: Group) -> None:
    """Of many random problems, the same ones in all processes."""

    @seed(1)
    @settings(deadline=None, max_examples=40, database=None, phases=[Phase.generate], suppress_health_check=HealthCheck)
    @given(
        number=st.integers(0, 10**6), each=st.integers(1, 12), m=st.integers(1, 40), k=st.integers(1, 9),
        signed=st.booleans(), ties=st.booleans(),
    )  # fmt: skip
    def problems(**problem: int) -> None:
        same_codes(group, **problem)

    problems()


def same_codes(group: Group, number: int, each: int, m: int, k: int, signed: bool, ties: bool) -> None:
    """`select`, `among` and `synthesize` of shards against the whole dictionary; few different values make ties."""
    generator = torch.Generator().manual_seed(number)
    n, d, k = 4 * each, min(m, 3), min(k, 4 * each)

    def drawn(*shape: int) -> torch.Tensor:
        whole = torch.randint(-2, 3, shape, generator=generator).double()
        return whole if ties else torch.randn(*shape, generator=generator, dtype=torch.float64)

    support, values, x, bias = Support.make("uniform", m=m, n=n, d=d, seed=number), drawn(n, d), drawn(5, m), drawn(n)
    whole = ExpanderDictionary(support, values)
    part = slice(group.rank * each, (group.rank + 1) * each)
    shard = Shard(Support.from_rows(support.rows[part], m), values[part], group)
    ours, theirs = shard.select(x, k, bias[part], signed), whole.select(x, k, bias, signed)
    assert torch.equal(ours.indices, theirs.indices)
    assert torch.equal(ours.values, theirs.values)
    torch.testing.assert_close(shard.synthesize(ours, x), whole.synthesize(theirs, x))
    few = torch.randperm(n, generator=generator)[: n // 3].sort().values  # some shards may have none of them
    few_here = few[(few >= part.start) & (few < part.stop)]
    best = shard.among(few_here - part.start, x, k)
    expected = torch.full((5, n), -torch.inf, dtype=torch.float64)
    expected[:, few] = whole.correlate(x)[:, few]
    found = torch.where(best.values == 0, -torch.inf, best.values)[:, : len(few)]
    wanted = expected.sort(dim=1, descending=True).values[:, : min(k, len(few))]
    torch.testing.assert_close(found.nan_to_num(), torch.where(wanted == 0, -torch.inf, wanted).nan_to_num())


def interrupted(folder: Path, x: torch.Tensor) -> None:
    """A run in four shards that fails after it was saved, for one process to go on with."""
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, SAMPLED + FAILS, fail), sharded("learned"), out=folder, feature_shards=4, progress=False)


def main() -> None:
    folder = Path(sys.argv[1])
    _, x = planted(2048)
    with joined() as group:
        codes_are_those_of_one_process(grid_of(group, 4).features)
        for name, shards in RUNS:
            line = grid_of(group, shards).data
            source = TensorBatches(x, batch=64, rank=line.rank, world=line.world)
            run = train(source, sharded(name), out=folder / f"{name}{shards}", feature_shards=shards, progress=False)
            assert run.sae.n * shards == run.config.n
        interrupted(folder / "four", x)
        one = TensorBatches(x, batch=64)
        train(one, sharded("learned"), out=folder / "one", resume=True, feature_shards=4, progress=False)


if __name__ == "__main__":
    main()
