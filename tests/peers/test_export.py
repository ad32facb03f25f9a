"""Exported folders in the hands of the libraries they are for: the same codes, the same reconstructions."""

import pytest
import torch

import expander_sae as xs
from expander_sae.interop.formats import export_to
from tests.interop.saes import KINDS, activations, autoencoder, check_same

sae_lens = pytest.importorskip("sae_lens")
sparsify = pytest.importorskip("sparsify")
dictionary_learning = pytest.importorskip("dictionary_learning")

every_shape = pytest.mark.parametrize(("sparse", "tied"), [(True, True), (True, False), (False, True), (False, False)])


def open_saelens(folder):
    sae = sae_lens.SAE.load_from_disk(str(folder))
    return sae, lambda x: sae.encode(x), sae.decode


def open_dictionary_learning(folder):
    from dictionary_learning.utils import load_dictionary

    sae, _ = load_dictionary(str(folder), "cpu")
    return sae, lambda x: sae.encode(x), sae.decode


def open_sparsify(folder):
    sae = sparsify.SparseCoder.load_from_disk(str(folder))

    def encode(x):
        top = sae.encode(x)
        return torch.zeros(len(x), sae.num_latents).scatter(1, top.top_indices, top.top_acts)

    def decode(codes):
        values, indices = codes.topk(sae.cfg.k, dim=1)
        return sae.decode(values, indices)

    return sae, encode, decode


OPEN = {"saelens": open_saelens, "sparsify": open_sparsify, "dictionary_learning": open_dictionary_learning}
PAIRS = [("saelens", kind) for kind in KINDS]
PAIRS += [("dictionary_learning", kind) for kind in ("topk", "batch_topk", "jumprelu")] + [("sparsify", "topk")]


@every_shape
@pytest.mark.parametrize(("to", "kind"), PAIRS)
def test_codes_and_reconstructions_are_ours(to, kind, sparse, tied, tmp_path):
    sae = autoencoder(kind, sparse=sparse, tied=tied)
    _, encode, decode = OPEN[to](export_to(sae, to, tmp_path / "out"))
    x = activations()
    codes = sae.encode(x).to_dense().detach()
    if kind == "matching_pursuit":  # a code counts in units of its column there
        codes = codes * sae.dictionary.norms().detach() / sae.scale
    with torch.no_grad():
        theirs = encode(x)
        check_same(theirs, codes)
        check_same(decode(theirs), sae(x))
    assert (theirs != 0).any()


def test_saelens_knows_where_it_was_trained(tmp_path):
    sae, _, _ = open_saelens(export_to(autoencoder("topk"), "saelens", tmp_path / "out"))
    metadata = sae.cfg.metadata
    assert (metadata.model_name, metadata.hook_name) == ("a/model", "blocks.3.hook_resid_post")
    assert (metadata.hf_hook_name, metadata.context_size, metadata.prepend_bos) == ("layers.3", 32, True)


def test_sparsify_finds_many_hookpoints_in_one_folder(tmp_path):
    for layer in (1, 2):
        export_to(autoencoder("topk", seed=layer), "sparsify", tmp_path / f"layers.{layer}")
    found = sparsify.SparseCoder.load_many(str(tmp_path), local=True)
    assert list(found) == ["layers.1", "layers.2"]
    assert xs.TopK(found["layers.1"].cfg.k) == autoencoder("topk").coder
