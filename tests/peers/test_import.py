"""Folders that other libraries wrote themselves, as autoencoders of this one: their codes, their reconstructions."""

import json

import pytest
import torch

from expander_sae.errors import ExpanderError
from expander_sae.interop.formats import import_from
from tests.interop.saes import K, M, N, activations, check_same

sae_lens = pytest.importorskip("sae_lens")
sparsify = pytest.importorskip("sparsify")
dictionary_learning = pytest.importorskip("dictionary_learning")


def with_random_weights(module):
    """Every weight far from how it starts, so that nothing holds by chance; logarithms stay small."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise.abs() if "threshold" in name else 0.2 * noise if "r_mag" in name else 0.5 * noise)
    return module


def check(imported, x, codes, x_hat, folder):
    """Imported, and saved and loaded again, it does what the other library does."""
    imported.save(folder)
    for sae in (imported, type(imported).load(folder)):
        check_same(sae.encode(x).to_dense(), codes)
        check_same(sae(x), x_hat)
    assert (codes != 0).any()


SAELENS = {
    "topk": ("TopKSAEConfig", {"k": K}),
    "topk-rescaled": ("TopKSAEConfig", {"k": K, "rescale_acts_by_decoder_norm": True}),
    "topk-no-bias-in": ("TopKSAEConfig", {"k": K, "apply_b_dec_to_input": False}),
    "standard": ("StandardSAEConfig", {}),
    "jumprelu": ("JumpReLUSAEConfig", {}),
    "jumprelu-no-bias-in": ("JumpReLUSAEConfig", {"apply_b_dec_to_input": False}),
    "gated": ("GatedSAEConfig", {}),
    "matching_pursuit": ("MatchingPursuitSAEConfig",
                         {"residual_threshold": 0.0, "max_iterations": K, "stop_on_duplicate_support": False}),
}  # fmt: skip


@pytest.mark.parametrize("case", SAELENS)
def test_saelens(case, tmp_path):
    from sae_lens import registry

    config_name, options = SAELENS[case]
    kinds = {config.__name__: (kind, config) for kind, config in registry.SAE_CLASS_REGISTRY.values()}
    kind, config = kinds[config_name]
    sae = with_random_weights(kind(config(d_in=M, d_sae=N, **options)))
    if case == "matching_pursuit":
        sae.W_dec.data = torch.nn.functional.normalize(sae.W_dec.data, dim=1)
    sae.save_model(tmp_path / "theirs")
    x = activations()
    check(import_from(tmp_path / "theirs"), x, sae.encode(x), sae(x), tmp_path / "ours")


def test_saelens_abstopk(tmp_path):
    from sae_lens.saes.abstopk_sae import AbsTopKSAE, AbsTopKSAEConfig

    sae = with_random_weights(AbsTopKSAE(AbsTopKSAEConfig(d_in=M, d_sae=N, k=K)))
    sae.save_model(tmp_path / "theirs")
    x = activations()
    check(import_from(tmp_path / "theirs"), x, sae.encode(x), sae(x), tmp_path / "ours")


@pytest.mark.parametrize("rescaled", [False, True])
def test_saelens_in_training_and_after_it(rescaled, tmp_path):
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    config = BatchTopKTrainingSAEConfig(d_in=M, d_sae=N, k=K, rescale_acts_by_decoder_norm=rescaled)
    training = with_random_weights(BatchTopKTrainingSAE(config))
    training.topk_threshold.fill_(0.6)
    training.save_model(tmp_path / "training")
    training.save_inference_model(tmp_path / "after")
    after = sae_lens.SAE.load_from_disk(str(tmp_path / "after"))
    x = activations()
    for name in ("training", "after"):
        imported = import_from(tmp_path / name)
        codes = after.encode(x)
        check_same(imported(x), after(x))
        assert torch.equal(imported.encode(x).to_dense() != 0, codes != 0)


@pytest.mark.parametrize("normalised", ["layer_norm", "constant_norm_rescale"])
def test_what_cannot_be_held_is_refused(normalised, tmp_path):
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    TopKSAE(TopKSAEConfig(d_in=M, d_sae=N, k=K, normalize_activations=normalised)).save_model(tmp_path / "theirs")
    with pytest.raises(ExpanderError, match=f"normalises every token in its own way \\({normalised}\\)"):
        import_from(tmp_path / "theirs")


@pytest.mark.parametrize("free", [False, True])
def test_sparsify(free, tmp_path):
    coder = sparsify.SparseCoder(M, sparsify.SparseCoderConfig(num_latents=N, k=K, normalize_decoder=not free))
    folder = tmp_path / "layers.4"
    with_random_weights(coder).save_to_disk(folder)
    x = activations()
    top = coder.encode(x)
    codes = torch.zeros(len(x), N).scatter(1, top.top_indices, top.top_acts)
    imported = import_from(folder)
    check(imported, x, codes, coder.decode(top.top_acts, top.top_indices), tmp_path / "ours")
    assert imported.provenance["activations"]["hookpoint"] == "layers.4"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"transcode": True}, "is a transcoder"),
        ({"activation": "groupmax"}, "groupmax"),
        ({"skip_connection": True}, "linear path beside its features"),
    ],
)
def test_sparsify_has_more_than_can_be_held(options, sentence, tmp_path):
    sparsify.SparseCoder(M, sparsify.SparseCoderConfig(num_latents=N, k=K, **options)).save_to_disk(tmp_path / "a")
    with pytest.raises(ExpanderError, match=sentence):
        import_from(tmp_path / "a")


def save_dictionary(folder, dictionary):
    folder.mkdir()
    trainer = {"dict_class": type(dictionary).__name__, "layer": 3, "lm_name": "a/model"}
    trainer |= {"activation_dim": M, "dict_size": N, "k": K}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 64}}))
    torch.save(dictionary.state_dict(), folder / "ae.pt")


def dictionaries():
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    return {
        "topk": AutoEncoderTopK(M, N, K),
        "batch_topk": BatchTopKSAE(M, N, K),
        "batch_topk-never-set": BatchTopKSAE(M, N, K),
        "matryoshka": MatryoshkaBatchTopKSAE(M, N, K, [20, 40]),
        "standard": dictionary.AutoEncoder(M, N),
        "gated": dictionary.GatedAutoEncoder(M, N),
        "jumprelu": dictionary.JumpReluAutoEncoder(M, N),
    }


CASES = ("topk", "batch_topk", "batch_topk-never-set", "matryoshka", "standard", "gated", "jumprelu")


@pytest.mark.parametrize("case", CASES)
def test_dictionary_learning(case, tmp_path):
    from dictionary_learning.utils import load_dictionary

    dictionary = with_random_weights(dictionaries()[case])
    if case in ("batch_topk", "matryoshka"):
        dictionary.threshold.fill_(0.8)
    save_dictionary(tmp_path / "theirs", dictionary)
    loaded, _ = load_dictionary(str(tmp_path / "theirs"), "cpu")
    x, imported = activations(), import_from(tmp_path / "theirs")
    check(imported, x, loaded.encode(x), loaded(x), tmp_path / "ours")
    origin = {"model": "a/model", "revision": None, "hookpoint": "layers.3", "context": 64}
    assert imported.provenance["activations"] == origin
