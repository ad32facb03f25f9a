"""A matrix that is not formed equals the one that is, and is formed only where there is no other way."""

import pytest
import torch

import expander_sae as xs
from expander_sae.interop.unformed import UnformedMatrix
from tests.interop.saes import M, N, autoencoder

FEATURES = torch.tensor([3, 0, -1])


@pytest.fixture(params=[True, False], ids=["rows", "columns"])
def matrix(request):
    dictionary = autoencoder("topk").dictionary
    return UnformedMatrix(dictionary, 0.5, torch.float32, dictionary.device, as_rows=request.param)


@pytest.fixture
def full(matrix):
    dense = (autoencoder("topk").dictionary.to_dense() * 0.5).detach()
    return dense.T if matrix.shape == (N, M) else dense


def featurewise(matrix, rows, columns):
    """What is written in one way for features first, and in another for features last."""
    return rows(matrix) if matrix.shape == (N, M) else columns(matrix)


CHEAP = {
    "some features": lambda w: featurewise(w, lambda w: w[FEATURES], lambda w: w[:, FEATURES]),
    "a list of features": lambda w: featurewise(w, lambda w: w[[5, 2]], lambda w: w[:, [5, 2]]),
    "one feature": lambda w: featurewise(w, lambda w: w[7], lambda w: w[:, 7]),
    "the last feature": lambda w: featurewise(w, lambda w: w[-1, :], lambda w: w[:, -1]),
    "norms": lambda w: featurewise(w, lambda w: torch.norm(w, dim=1), lambda w: w.norm(dim=0)),
    "norms that stay": lambda w: featurewise(w, lambda w: w.norm(dim=-1, keepdim=True), lambda w: w.norm(dim=-2)),
    "data, turned": lambda w: featurewise(w, lambda w: w.data.T[:, 4], lambda w: w.data.T[4]),
    "another dtype": lambda w: featurewise(w, lambda w: w.double()[FEATURES], lambda w: w.double()[:, FEATURES]),
}
FORMED = {
    "a product": lambda w: torch.ones(2, w.shape[0]) @ w,
    "a product, turned": lambda w: torch.ones(2, w.shape[1]) @ w.T,
    "divided": lambda w: w / 2,
    "a coordinate": lambda w: featurewise(w, lambda w: w[:, 3], lambda w: w[3]),
    "all norms together": torch.norm,
    "other norms": lambda w: torch.linalg.vector_norm(w, float("inf"), dim=1),
    "norms of coordinates": lambda w: featurewise(w, lambda w: w.norm(dim=0), lambda w: w.norm(dim=1)),
    "single entries": lambda w: w[[1, 2], [3, 4]],
    "a slice": lambda w: w[2:5],
    "a mask": lambda w: w[torch.arange(w.shape[0]) % 2 == 0],
    "a copy": lambda w: w.data.clone(),
}


@pytest.mark.parametrize("read", CHEAP.values(), ids=CHEAP)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_what_is_read_is_made_and_no_more(matrix, full, read, mode, monkeypatch):
    monkeypatch.setattr(UnformedMatrix, "formed", lambda self: pytest.fail("it was made in full"))
    with mode():
        found = read(matrix)
    assert not isinstance(found, UnformedMatrix)
    torch.testing.assert_close(found, read(full))


@pytest.mark.parametrize("compute", FORMED.values(), ids=FORMED)
def test_anything_else_is_as_if_it_were_there(matrix, full, compute):
    torch.testing.assert_close(compute(matrix), compute(full))


def test_it_looks_like_a_tensor(matrix, full):
    assert isinstance(matrix, torch.Tensor)
    assert (matrix.shape, matrix.dtype, matrix.device) == (full.shape, full.dtype, full.device)
    assert matrix.data.T.shape == full.T.shape
    assert "[60, 24]" in repr(matrix) or "[24, 60]" in repr(matrix)


def test_gradients_of_what_it_multiplies_flow(matrix, full):
    x = torch.rand(3, full.shape[0], requires_grad=True)
    (found,) = torch.autograd.grad((x @ matrix).square().sum(), x)
    (expected,) = torch.autograd.grad((x @ full).square().sum(), x)
    torch.testing.assert_close(found, expected)


def test_quantised_and_dense_dictionaries_too(tmp_path):
    for sparse in (True, False):
        sae = autoencoder("topk", sparse=sparse)
        sae.save(tmp_path / str(sparse), values="int8")
        dictionary = xs.SparseAutoencoder.load(tmp_path / str(sparse)).dictionary
        rows = UnformedMatrix(dictionary, 2.0, torch.float32, torch.device("cpu"), as_rows=True)
        torch.testing.assert_close(rows[FEATURES], 2 * dictionary.to_dense().T[FEATURES].float())
