"""Autoencoders of this library inside SAELens: loaded by its own functions, sparse, under every coder."""

import os
import subprocess
import sys

import pytest
import torch

import expander_sae as xs
from expander_sae.interop.formats import export_to
from tests.interop.fake_hub import serving
from tests.interop.saes import K, M, N, activations, autoencoder, check_same
from tests.peers.whole import nothing_whole

sae_lens = pytest.importorskip("sae_lens")

from expander_sae.interop.saelens_host import ExpanderSAE  # noqa: E402


@pytest.fixture(params=[xs.OMP(K), xs.TopK(K), xs.Candidates(K, signed=True)], ids=lambda coder: type(coder).__name__)
def sae(request):
    return autoencoder("topk").with_coder(request.param)


@pytest.fixture
def hosted(sae, tmp_path):
    return sae_lens.SAE.load_from_disk(str(export_to(sae, "saelens_sparse", tmp_path / "out")))


def test_it_does_what_ours_does(sae, hosted):
    x = activations().reshape(4, 50, M)
    assert isinstance(hosted, ExpanderSAE)
    check_same(hosted.encode(x), sae.encode(x).to_dense())
    check_same(hosted(x), sae(x))
    assert hosted.autoencoder.coder == sae.coder


def test_nothing_dense_is_held_or_made(hosted):
    held = sum(tensor.numel() for tensor in [*hosted.parameters(), *hosted.buffers()])
    assert held < N * M / 2
    x = activations(50)
    with nothing_whole():
        hosted(x)
        hosted.decode(hosted.encode(x))
        assert hosted.W_dec.shape == (N, M)
        assert hosted.W_enc.shape == (M, N)
        assert hosted.W_dec[[3, 5]].shape == (2, M)


def test_weights_are_what_codes_multiply(hosted):
    codes = torch.rand(7, N)  # all of them, as an ablation makes them
    check_same(hosted.decode(codes), codes @ hosted.W_dec + hosted.b_dec)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_rows_survive_every_cast(sae, dtype, tmp_path):
    folder = export_to(sae, "saelens_sparse", tmp_path / "out")
    hosted = sae_lens.SAE.load_from_disk(str(folder), dtype=dtype)
    assert torch.equal(hosted.autoencoder.dictionary.rows, sae.dictionary.rows)
    assert hosted.W_dec.dtype == hosted.dtype == getattr(torch, dtype)


def test_saelens_saves_it_and_loads_it_again(sae, hosted, tmp_path):
    hosted.save_model(tmp_path / "again")
    again = sae_lens.SAE.load_from_disk(str(tmp_path / "again"))
    check_same(again(activations()), sae(activations()))


def test_one_in_memory_can_be_dressed_too(sae, tmp_path):
    hosted = ExpanderSAE.of(sae)
    check_same(hosted(activations()), sae(activations()))
    assert hosted.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
    hosted.save_model(tmp_path / "out")
    assert torch.equal(sae_lens.SAE.load_from_disk(str(tmp_path / "out")).W_dec, hosted.W_dec)


def test_the_error_term_closes_the_gap(hosted):
    hosted._use_error_term = True
    x = activations()
    torch.testing.assert_close(hosted(x), x, rtol=1e-5, atol=1e-5)


def test_hooks_see_and_change_the_codes(hosted):
    x = activations()
    seen = {}

    def silence(codes, hook):
        seen[hook.name] = codes.shape
        return torch.zeros_like(codes)

    out = hosted.run_with_hooks(x, fwd_hooks=[("hook_sae_acts_post", silence)])
    assert seen == {"hook_sae_acts_post": (200, N)}
    check_same(out, hosted.b_dec.expand(200, M))


FROM_HUB = """
import sys
import sae_lens, torch
import expander_sae.interop.saelens_host

sae = sae_lens.SAE.from_pretrained("me/saes", "layers.3")
torch.save(sae(torch.load("x.pt")).detach(), "x_hat.pt")
"""


def test_saelens_gets_it_from_a_hub(tmp_path):
    sae, x = autoencoder("topk").with_coder(xs.OMP(K)), activations()
    torch.save(x, tmp_path / "x.pt")
    with serving() as (_, endpoint):
        xs.push_to_hub(sae, "me/saes", endpoint=endpoint, token="hf_" + "a" * 34)
        # Where the hub is is read once, when its client is imported.
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "c"),
        }
        subprocess.run([sys.executable, "-c", FROM_HUB], cwd=tmp_path, env=os.environ | settings, check=True)
    check_same(torch.load(tmp_path / "x_hat.pt"), sae(x))


def test_it_stands_in_a_hooked_transformer(sae):
    from sae_lens import HookedSAETransformer
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=4, d_model=M, n_ctx=16, d_head=8, n_heads=3, d_vocab=30, act_fn="gelu", seed=0
    )
    model, hosted = HookedSAETransformer(config), ExpanderSAE.of(sae)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        clean = model(tokens)
        _, cache = model.run_with_cache(tokens)
        spliced, with_codes = model.run_with_cache_with_saes(tokens, saes=[hosted])
        kept = model.run_with_saes(tokens, saes=[hosted], use_error_term=True)
    codes = with_codes["blocks.3.hook_resid_post.hook_sae_acts_post"]
    check_same(codes, sae.encode(cache["blocks.3.hook_resid_post"]).to_dense())
    assert not torch.allclose(spliced, clean)
    torch.testing.assert_close(kept, clean, rtol=1e-4, atol=1e-4)


def test_it_stands_in_a_transformer_of_hugging_face(sae, tmp_path):
    from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2"
    torch.manual_seed(0)
    config = GPT2Config(n_embd=M, n_layer=4, n_head=3, vocab_size=30, n_positions=16, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    model, hosted = SAETransformerBridge.boot_transformers(str(folder)), ExpanderSAE.of(sae)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        _, with_codes = model.run_with_cache_with_saes(tokens, saes=[hosted], reset_saes_end=False)
    name = model.get_sae_hook_name(hosted)
    residual = cache[model.get_sae_hook_name(hosted, "").removesuffix(".")]
    check_same(with_codes[name], sae.encode(residual).to_dense())


def save_tokenizer(folder):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(30)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0", bos_token="w0", pad_token="w0")
    wrapped.save_pretrained(folder)
