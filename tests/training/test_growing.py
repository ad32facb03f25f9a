"""Growing a dense dictionary: what is kept of it, what clusters are, and training that holds the encoder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.dictionaries import ComposedDictionary, DenseDictionary
from expander_sae.errors import ExpanderError
from expander_sae.training import TensorBatches, TrainConfig, grow, growing, train
from expander_sae.training.growing import clusters_of
from tests.training.failing import Failing, fail
from tests.training.planted import same_tensors

M, P, N, K, D = 12, 16, 40, 4, 3


def dense(seed: int = 0) -> xs.SparseAutoencoder:
    torch.manual_seed(seed)
    sae = xs.SparseAutoencoder(DenseDictionary(M, P), xs.TopK(K), latent_bias=True, provenance={"text": "planted"})
    with torch.no_grad():
        sae.latent_bias.normal_(0, 0.1)
        sae.pre_bias.normal_()
        sae.scale.fill_(1.5)
    return sae


def planted(tokens: int = 400, kinds: int = 24, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of some kinds, each near a direction of its own."""
    generator = torch.Generator().manual_seed(1)
    centres = 3 * torch.randn(kinds, M, generator=generator)
    kind = torch.arange(tokens) % kinds
    return centres[kind] + noise * torch.randn(tokens, M, generator=generator), kind


@pytest.fixture(scope="module")
def grown() -> xs.SparseAutoencoder:
    return grow(dense(), planted()[0], N, D, fires=0.84)


def test_atoms_stay_what_they_were(grown: xs.SparseAutoencoder) -> None:
    before = dense()
    assert isinstance(grown.dictionary, ComposedDictionary)
    assert isinstance(grown.encoder, ComposedDictionary)
    assert grown.encoder.atoms is grown.dictionary.atoms
    x = planted()[0][:20]
    centred = x * before.scale - before.pre_bias
    for dictionary in (grown.dictionary, grown.encoder):
        torch.testing.assert_close(dictionary.correlate(centred)[:, :P], before.dictionary.correlate(centred))
    torch.testing.assert_close(grown.latent_bias[:P], before.latent_bias)
    assert float(grown.scale) == float(before.scale)
    assert grown.provenance["text"] == "planted"
    assert grown.dictionary.mixtures.support.degrees[P:].max() <= D


def test_a_mixture_fires_on_its_cluster_and_what_it_adds_is_no_larger_than_what_was_left(
    grown: xs.SparseAutoencoder,
) -> None:
    x, kind = planted()
    codes = grown.encode(x)
    fired = torch.zeros(len(x), N, dtype=torch.bool).scatter(1, codes.indices, codes.values > 0)[:, P:]
    assert (fired.any(dim=1).float().mean()) > 0.8
    # A feature's tokens are of few kinds: the kinds were planted so that clusters can tell them apart.
    together = fired.float().T @ torch.nn.functional.one_hot(kind, 24).float()
    purity = together.max(dim=1).values / together.sum(dim=1).clamp_min(1)
    assert purity[together.sum(dim=1) > 3].median() > 0.5


def test_features_that_fire_more_take_more_of_the_codes() -> None:
    x, _ = planted()
    shares = []
    for fires in (0.3, 1.0):
        codes = grow(dense(), x, N, D, fires).encode(x)
        shares.append(float(((codes.indices >= P) & (codes.values > 0)).float().mean()))
    assert shares[0] < shares[1]


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(0, 5), st.booleans())
def test_every_token_is_in_one_cluster_and_no_cluster_number_is_beyond_the_last(
    count: int, seed: int, alike: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(2 * count, 5, generator=generator), dim=1)
    x = x[:1].expand_as(x) if alike else x
    cluster, coarse = clusters_of(x, count, torch.Generator().manual_seed(seed))
    again = clusters_of(x, count, torch.Generator().manual_seed(seed))
    assert torch.equal(cluster, again[0])
    assert torch.equal(coarse, again[1])
    assert 0 <= int(cluster.min()) <= int(cluster.max()) < count == len(coarse)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=12), st.integers(12, 400))
def test_coarse_clusters_are_divided_in_proportion_to_their_tokens(sizes: list[int], count: int) -> None:
    assume(sum(sizes) > 0)
    tokens = torch.tensor(sizes)
    parts = growing._in_proportion(tokens, count)
    assert int(parts.sum()) == count
    assert torch.equal(parts > 0, tokens > 0)
    assert (parts <= (tokens * count / tokens.sum() + 1).clamp_min(1)).all()


def test_planted_kinds_are_the_clusters() -> None:
    x, kind = planted(tokens=960, noise=0.01)
    cluster, _ = clusters_of(torch.nn.functional.normalize(x, dim=1), 96, torch.Generator().manual_seed(0))
    for each in cluster.unique():
        assert len(kind[cluster == each].unique()) == 1


def cosines(directions: torch.Tensor) -> torch.Tensor:
    return (directions @ directions.T)[~torch.eye(len(directions), dtype=torch.bool)]


def test_what_clusters_have_in_common_with_their_neighbours_is_half_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    shared, own = torch.zeros(M), torch.randn(6, M, generator=generator)
    shared[0] = 5
    own -= own.mean(dim=0)
    sizes, coarse = torch.tensor([4, 4, 4, 4, 4, 4, 0]), torch.tensor([0, 0, 0, 0, 0, 0, 1])
    means = torch.cat([shared + own, torch.zeros(1, M)])
    apart = growing._apart(means, sizes, coarse)
    torch.testing.assert_close(apart[:6], torch.nn.functional.normalize(shared / 2 + own, dim=1))
    assert not apart[6].any()
    assert cosines(apart[:6]).mean() < cosines(torch.nn.functional.normalize(means[:6], dim=1)).mean() - 0.1


def firings(sae: xs.SparseAutoencoder, x: torch.Tensor) -> torch.Tensor:
    codes = sae.encode(x)
    return torch.bincount(codes.indices[codes.values > 0], minlength=sae.n)[P:]


def test_thresholds_are_lowered_until_mixtures_fire_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = planted()
    monkeypatch.setattr(growing, "OFTEN", 0.0)
    before = grow(dense(), x, N, D, fires=0.2)
    monkeypatch.setattr(growing, "OFTEN", 0.03)
    after = grow(dense(), x, N, D, fires=0.2)
    least = 12
    assert torch.equal(before.untied_encoder.mixtures.values, after.untied_encoder.mixtures.values)
    bias = before.latent_bias[P:], after.latent_bias[P:]
    assert (bias[0] <= bias[1]).all()
    assert (bias[1] <= 0).all()
    rare = firings(before, x) < least
    assert rare.float().mean() > 0.3
    assert (firings(after, x) >= least - 2).float().mean() > 0.9
    assert torch.equal(before.latent_bias[:P], after.latent_bias[:P])


def test_the_same_seed_grows_the_same_and_another_one_does_not(grown: xs.SparseAutoencoder) -> None:
    x = planted()[0]
    assert same_tensors(grown, grow(dense(), x, N, D, fires=0.84))
    assert not same_tensors(grown, grow(dense(), x, N, D, fires=0.84, seed=1))


def test_all_tokens_alike_grow_to_finite_numbers() -> None:
    sae = grow(dense(), torch.ones(100, M), N, D)
    assert all(bool(parameter.isfinite().all()) for parameter in sae.parameters())


def test_what_is_saved_shares_its_atoms_too(grown: xs.SparseAutoencoder, tmp_path: Path) -> None:
    x = planted()[0]
    for values in (None, "int8"):
        grown.save(tmp_path / "sae", values=values)
        loaded = xs.SparseAutoencoder.load(tmp_path / "sae")
        assert loaded.encoder.atoms is loaded.dictionary.atoms
        assert loaded.learned_values == grown.learned_values
        if values is None:
            torch.testing.assert_close(loaded(x), grown(x), rtol=0, atol=0)
    mixtures = grown.dictionary.mixtures.learned_values
    assert grown.learned_values == P * M + 2 * mixtures + N + M


def config(start: Path) -> TrainConfig:
    return TrainConfig(n=N, d=D, k=K, start=str(start), coder="topk", tied=False, hold_encoder=True,
                       tokens=2048, batch=64, log_every=4, checkpoint_every=256)  # fmt: skip


def test_training_holds_the_encoder_and_explains_more(grown: xs.SparseAutoencoder, tmp_path: Path) -> None:
    x = planted(2048)[0]
    grown.save(tmp_path / "grown")
    run = train(x, config(tmp_path / "grown"), progress=False)
    assert torch.equal(run.sae.encoder.mixtures.values, grown.encoder.mixtures.values)
    assert torch.equal(run.sae.encoder.atoms.values, grown.encoder.atoms.values)
    assert torch.equal(run.sae.latent_bias, grown.latent_bias)
    assert not torch.equal(run.sae.dictionary.mixtures.values, grown.dictionary.mixtures.values)
    assert run.sae.encoder.atoms is run.sae.dictionary.atoms
    error = [(sae(x) - x).square().sum() for sae in (grown, run.sae)]
    assert error[1] < error[0]


def test_held_training_goes_on_to_the_same_bits(grown: xs.SparseAutoencoder, tmp_path: Path) -> None:
    x = planted(2048)[0]
    grown.save(tmp_path / "grown")
    whole = train(TensorBatches(x, batch=64), config(tmp_path / "grown"), progress=False)
    sampled = 256
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, sampled + 13, fail), config(tmp_path / "grown"), out=tmp_path / "run", progress=False)
    again = TensorBatches(x, batch=64)
    assert same_tensors(
        whole.sae, train(again, config(tmp_path / "grown"), out=tmp_path / "run", progress=False, resume=True).sae
    )


def test_what_cannot_be_grown_is_refused() -> None:
    x = planted()[0]
    signed = xs.SparseAutoencoder(DenseDictionary(M, P), xs.TopK(K, signed=True))
    untied = xs.SparseAutoencoder(DenseDictionary(M, P), xs.TopK(K), tied=False)
    for sae, n, d, tokens, reason in (
        (signed, N, D, x, "non-negative"), (untied, N, D, x, "its own encoder"), (dense(), P, D, x, "not to 16"),
        (dense(), N, 1, x, "from 2 to 16"), (dense(), N, P + 1, x, "from 2 to 16"), 
        (dense(), 400, D, x, "at least 768"),
    ):  # fmt: skip
        with pytest.raises(ExpanderError, match=reason):
            grow(sae, tokens, n, d)


@pytest.mark.parametrize("other", [{"tied": True}, {"start": None}, {"auxk": 0.1}, {"lift": 0.1}])
def test_what_cannot_be_held_is_refused(other: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ExpanderError, match=r"can be held|are not revived"):
        replace(config(tmp_path), **other)
