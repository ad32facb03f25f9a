"""Autoencoders of this library under the dashboards and the judges of others, as these run them: whole and unchanged.

No judge may have the whole matrix made of a dictionary, where it reads only a part.
"""

import json
from pathlib import Path

import pytest
import torch

import expander_sae as xs
from tests.interop.saes import M, autoencoder
from tests.peers.whole import nothing_whole
from tests.tiny import LINES, make_model, make_tokenizer

pytest.importorskip("sae_bench")

from expander_sae.interop.saelens_host import ExpanderSAE

CONTEXT = 16


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    made = make_tokenizer()
    made.eos_token = made.pad_token = made.bos_token
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def model(tokenizer):
    from sae_lens import HookedSAETransformer
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=4, d_model=M, n_ctx=CONTEXT, d_head=8, n_heads=3, d_vocab=len(tokenizer), act_fn="gelu", seed=0
    )
    return HookedSAETransformer(config, tokenizer=tokenizer)


@pytest.fixture
def hosted():
    sae = autoencoder("topk").with_coder(xs.OMP(5))
    hosted = ExpanderSAE.of(sae)
    hosted.cfg.metadata.model_name = "tiny"
    return hosted


def test_saedashboard_shows_its_features(model, hosted, tokenizer, tmp_path):
    from sae_dashboard.data_writing_fns import save_feature_centric_vis
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner

    tokens = torch.randint(0, len(tokenizer), (8, CONTEXT), generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(tokens)
    codes = hosted.autoencoder.encode(cache["blocks.3.hook_resid_post"]).to_dense()
    busy = codes.flatten(0, 1).count_nonzero(dim=0).topk(3).indices.tolist()
    config = SaeVisConfig(
        hook_point="blocks.3.hook_resid_post",
        features=busy,
        minibatch_size_features=2,
        minibatch_size_tokens=4,
        device="cpu",
        dtype="float32",
    )
    with nothing_whole():
        data = SaeVisRunner(config).run(encoder=hosted, model=model, tokens=tokens)
    for feature in busy:
        shown = data.feature_data_dict[feature]
        density = float((codes[..., feature] > 0).float().mean())
        assert f"DENSITY = {density:.3%}" in shown.acts_histogram_data.title
        directions = hosted.W_dec[feature] @ model.W_U
        assert shown.logits_table_data.top_logits[0] == pytest.approx(float(directions.max()), rel=1e-4)
    save_feature_centric_vis(data, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a name of a data set is looked for as a folder here first
    Path("prose").mkdir()
    Path("prose/train.jsonl").write_text(60 * (json.dumps({"text": " ".join(LINES)}) + "\n"))
    return "prose"


def test_saebench_core_measures_it(model, hosted, text):
    from sae_bench.evals.core.main import run_evals
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
    from sae_lens import ActivationsStore

    from benchmarks.saebench import core_config

    with nothing_whole():
        _, judged, _ = load_and_format_sae("ours", hosted, "cpu")
    store = ActivationsStore.from_sae(model, judged, context_size=CONTEXT, dataset=text)
    config = core_config("tiny", CONTEXT, prompts=4, batches=2)
    with nothing_whole():
        found, _ = run_evals(judged, store, model, config)
    assert found["sparsity"]["l0"] == 5
    store.reset_input_dataset()
    tokens = store.get_batch_tokens(4)
    x = model.run_with_cache(tokens)[1]["blocks.3.hook_resid_post"].flatten(0, 1)
    ours = torch.nn.functional.cosine_similarity(hosted.autoencoder(x), x).mean()
    assert found["reconstruction_quality"]["cossim"] == pytest.approx(float(ours), abs=0.02)


def test_saebench_core_and_our_evaluation_agree(tokenizer, text, tmp_path):
    from transformer_lens import HookedTransformer

    from benchmarks.saebench import MODEL, Judging, core, hub_of_folders, ours_on_the_same

    folder = tmp_path / "llama"
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    dictionary = xs.ExpanderDictionary(xs.Support.make("uniform", m=16, n=40, d=4), torch.randn(40, 4))
    sae = xs.SparseAutoencoder(dictionary, xs.OMP(3), provenance={"activations": {"hookpoint": "layers.1"}})
    judging = Judging((), Path("prose/train.jsonl"), tmp_path / "out.json", prompts=3, context=CONTEXT, probes=())
    with hub_of_folders(folder, judging.text):
        model = HookedTransformer.from_pretrained_no_processing(MODEL, device="cpu", dtype="float32")
        theirs, ours = core(sae, model, judging), ours_on_the_same({"sae": sae}, judging)["sae"]
    assert theirs["core_ce_loss_without_sae"] == pytest.approx(ours["eval_clean"], abs=1e-5)
    assert theirs["core_ce_loss_with_sae"] == pytest.approx(ours["eval_patched"], abs=1e-5)
    assert theirs["core_l0"] == ours["eval_l0"] == 3
