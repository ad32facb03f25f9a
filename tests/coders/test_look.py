"""TopK that looks at a share of the features: the same codes where that is all, near ones where it is some."""

from __future__ import annotations

import pytest
import torch

from expander_sae import (
    ComposedDictionary,
    DenseDictionary,
    ExpanderDictionary,
    ExpanderError,
    SparseAutoencoder,
    Support,
    TopK,
    Union,
)


def expander(m=48, n=3000, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ExpanderDictionary(Support.make("uniform", m=m, n=n, d=d, seed=seed), torch.randn(n, d, generator=generator))


def tokens(count=300, m=48, seed=1):
    return torch.randn(count, m, generator=torch.Generator().manual_seed(seed)) * torch.logspace(-1, 1, m)


def composed():
    atoms = DenseDictionary(24, 48, generator=torch.Generator().manual_seed(2))
    return ComposedDictionary(atoms, expander())


@pytest.mark.parametrize("make", [expander, composed])
@pytest.mark.parametrize("signed", [False, True])
def test_who_looks_at_all_has_the_same_codes_and_gradients(make, signed):
    found = []
    for look in (None, 1.0):
        dictionary, bias = make(), torch.linspace(-1, 1, 3000).requires_grad_()
        x = tokens(m=dictionary.m).requires_grad_()
        codes = TopK(9, signed, look)(dictionary, x, bias)
        codes.values.square().sum().backward()
        gradients = [x.grad, bias.grad, *(parameter.grad for parameter in dictionary.parameters())]
        found.append((codes.indices, codes.values.detach(), gradients))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=0)
    torch.testing.assert_close(found[0][2], found[1][2])


def test_who_looks_at_some_has_exact_codes_of_those_and_most_of_the_best():
    dictionary, x = expander(), tokens()
    exact, some = TopK(9)(dictionary, x), TopK(9, look=0.3)(dictionary, x)
    assert torch.equal(some.values, dictionary.correlate_at(x, some.indices).relu())
    recall = (some.indices[:, :, None] == exact.indices[:, None, :]).any(dim=1).float().mean()
    assert 0.9 < recall < 1
    assert (some.values.sum(dim=1) <= exact.values.sum(dim=1)).all()


def test_any_shape_of_batch_and_columns_that_move():
    dictionary, x = expander(), tokens()
    coder = TopK(9, look=0.3)
    codes = coder(dictionary, x)
    assert torch.equal(coder(dictionary, x.reshape(3, 100, 48)).indices, codes.indices.reshape(3, 100, 9))
    assert torch.equal(coder(dictionary, x[0]).indices, codes.indices[0])
    assert coder(dictionary, x[:0]).indices.shape == (0, 9)
    moved = codes.indices[0, :1]
    dictionary.place(moved, torch.arange(43, 48, dtype=torch.int32)[None], torch.full((1, 5), 1e3))
    assert (TopK(1, look=0.3)(dictionary, x.abs()).indices == moved).any()


def test_an_autoencoder_keeps_it(tmp_path):
    sae = SparseAutoencoder(expander(), TopK(9, look=0.25))
    sae.save(tmp_path / "sae")
    loaded = SparseAutoencoder.load(tmp_path / "sae")
    assert loaded.coder == TopK(9, look=0.25)
    assert torch.equal(loaded.encode(tokens()).indices, sae.encode(tokens()).indices)


def test_where_it_cannot_be_had_a_sentence_says_so():
    x = tokens()
    for dictionary in (DenseDictionary(48, 100), Union([expander(), DenseDictionary(48, 10)])):
        with pytest.raises(ExpanderError, match="leave look off"):
            TopK(3, look=0.1)(dictionary, x)
    with pytest.raises(ExpanderError, match="at least 256, not 255"):
        TopK(3, look=0.1)(expander(), x[:255])
    for share in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(ExpanderError, match="look must be above 0 and at most 1"):
            TopK(3, look=share)
