"""Databases with a language model at hand: tokens as text, what features promote, and the command."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.sparse import csc_array
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.models import LanguageModel, load_language_model
from expander_sae.activations.texts.spelling import Spelling
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.cli.main import main
from expander_sae.coders import OMP, TopK
from expander_sae.dictionaries import DenseDictionary, ExpanderDictionary
from expander_sae.evaluation.quality.reading import Halves, token_r2
from expander_sae.features import FeatureDatabase
from expander_sae.features.columns import Lens
from expander_sae.features.shards import Block, Text
from expander_sae.supports import Support

WORDS = ("river", "gate", "<script>alert(1)</script>", "🌉 bridge", "water", "שלום", "nul\0")


@pytest.fixture(scope="module")
def language_model(tiny_model_folder: Path) -> LanguageModel:
    return load_language_model(tiny_model_folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [json.dumps({"text": f"The {WORDS[n % 7]} of day {n} was {WORDS[n % 5]}, not {n * n}."}) for n in range(60)]
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def run(tmp_path: Path, tiny_model_folder: Path, text: Path) -> Path:
    """An autoencoder that says what it was trained on."""
    generator = torch.Generator().manual_seed(0)
    dictionary = ExpanderDictionary(Support.make("uniform", m=16, n=40, d=3, seed=0), generator=generator)
    origin = {"model": str(tiny_model_folder), "hookpoint": "layers.1", "text": str(text), "context": 32, "bos": False}
    provenance = {"activations": {**origin, "column": "text", "part": "train"}}
    SparseAutoencoder(dictionary, TopK(4), provenance=provenance).save(tmp_path / "run")
    return tmp_path / "run"


def test_the_command_writes_a_database_and_what_others_read(run: Path, text: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = run.parent
    command = ["features", str(run), "--part", "all", "--tokens", "900", "--strongest", "5", "--drawn", "2"]
    main([*command, "--neuronpedia", str(out / "np"), "--delphi", str(out / "delphi")])
    printed = capsys.readouterr().out
    database = FeatureDatabase.open(run)
    info = database.info
    assert f"run: {info.alive} of 40 features fire on 10 tokens or more" in printed
    assert info.tokens == 900
    assert (info.origin["hookpoint"], info.origin["text"], info.origin["part"]) == ("layers.1", str(text), "all")
    documents = [json.loads(line)["text"] for line in text.read_text().split("\n")]
    seen = ""
    for feature in range(40):
        for context in database.contexts(feature):
            shown = "".join(context["tokens"])
            assert shown.strip("\ufffd") in documents[context["document"]]
            seen += shown
    assert "<script>" in seen
    assert "🌉" in seen
    main(command)  # finds all of it done
    assert FeatureDatabase.open(run).info == info
    _check_neuronpedia(out / "np" / "model" / "1-run", database)
    _check_delphi(out / "delphi" / "layers.1", database)


def _check_neuronpedia(folder: Path, database: FeatureDatabase) -> None:
    for name in ("release", "model", "sourceset", "source"):
        (line,) = (folder / f"{name}.jsonl").read_text().splitlines()
        assert json.loads(line)["creatorId"]
    features, activations = (
        [json.loads(line) for line in gzip.decompress((folder / part / "batch-0.jsonl.gz").read_bytes()).splitlines()]
        for part in ("features", "activations")
    )
    fired = {row["feature"]: row for row in database.features().to_pylist() if row["fired"]}
    assert [int(each["index"]) for each in features] == list(fired)
    tokens = database.info.tokens - database.info.massive
    for each in features:
        row = fired[int(each["index"])]
        assert sorted(each["neuron_alignment_indices"]) == row["rows"]
        assert sum(each["neuron_alignment_l1"]) == pytest.approx(1)
        assert (each["maxActApprox"], each["frac_nonzero"]) == (row["largest"], row["density"])
        assert each["freq_hist_data_bar_heights"] == row["histogram"]
        assert (each["layer"], each["modelId"]) == ("1-run", "model")
        for other, count, pearson in zip(
            row["together"], row["together_count"], each["correlated_features_pearson"], strict=True
        ):
            ones = np.zeros((2, tokens))
            a, b = row["fired"], fired[other]["fired"]
            ones[0, :a], ones[1, a - count : a - count + b] = 1, 1
            assert pearson == pytest.approx(np.corrcoef(ones)[0, 1])
    assert len({each["id"] for each in activations}) == len(activations)
    for each in activations:
        assert each["values"][each["maxValueTokenIndex"]] == each["maxValue"] == max(each["values"])
        assert len(each["tokens"]) == len(each["values"]) > each["qualifyingTokenIndex"]
        assert -1 <= each["binMin"] <= each["binMax"] <= fired[int(each["index"])]["largest"]
    strongest = [each for each in activations if each["binContains"] == -1]
    assert {int(each["index"]) for each in strongest} == set(fired)


def _check_delphi(folder: Path, database: FeatureDatabase) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert (config["ctx_len"], config["n_tokens"]) == (32, 900 // 32 * 32)
    files = sorted(folder.glob("*.safetensors"), key=lambda path: int(path.stem.split("_")[0]))
    edges = [tuple(map(int, path.stem.split("_"))) for path in files]
    assert edges[0][0] == 0
    assert edges[-1][1] == 39
    counts = np.zeros(40, dtype=int)
    for (first, _), path in zip(edges, files, strict=True):
        found = load_file(path)
        assert found["tokens"].shape == (900 // 32, 32)
        assert found["activations"].dtype == np.float16
        assert (found["locations"][:, 0] < 900 // 32).all()
        assert (found["locations"][:, 1] < 32).all()
        counts += np.bincount(found["locations"][:, 2] + first, minlength=40)
    fired = database.features().column("fired").to_numpy()
    assert (counts <= fired).all()
    assert (fired - counts).sum() <= 4 * (900 % 32)


def test_a_store_gives_the_same_as_the_text(run: Path, language_model: LanguageModel, text: Path) -> None:
    settings = TextConfig(text=str(text), part="all", context=32)
    harvest(language_model, ["layers.1"], tokens=900, out=run.parent / "acts", text=settings, dtype="bfloat16")
    command = ["features", str(run), "--tokens", "900"]
    main([*command, "--part", "all", "--out", str(run.parent / "text")])
    main([*command, "--store", str(run.parent / "acts"), "--out", str(run.parent / "store")])
    read, stored = (FeatureDatabase.open(run.parent / name) for name in ("text", "store"))
    fired = [database.features().column("fired").to_numpy() for database in (read, stored)]
    assert np.abs(fired[0] - fired[1]).sum() < 0.05 * fired[0].sum()  # bfloat16 changes some picks
    assert read.features().column("top_tokens").equals(stored.features().column("top_tokens"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--hookpoint", "layer.1"], "No module of the model matches 'layer.1'; the nearest names are layers.1"),
        (
            ["--hookpoint", "layers.1.mlp.gate_proj"],
            "width 16, but the ones here are 32 wide",
        ),
        (["--store", "nowhere"], "nowhere does not exist"),
        (["--store", "nowhere", "--text", "python"], "A store has its own text and hookpoint"),
        (["--lens", "1000"], "tokens, so lens must be at most that, not 1000"),
        (["--tokens", "0"], "tokens must be at least 1, not 0"),
        (["--neuronpedia"], None),
    ],
)
def test_mistakes_end_in_a_sentence(run: Path, options: list[str], sentence: str | None, capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as ended:
        main(["features", str(run), *options])
    assert ended.value.code != 0
    if sentence is not None:
        assert sentence in capsys.readouterr().err
    assert not (run / "features").exists()


def test_a_run_that_does_not_know_its_model(run: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    sae = SparseAutoencoder.load(run)
    sae.provenance = {}
    sae.save(run)
    with pytest.raises(SystemExit):
        main(["features", str(run)])
    assert "does not say what model it was trained with; give --model" in capsys.readouterr().err


def test_readability_is_that_of_the_quality_room(run: Path) -> None:
    main(["features", str(run), "--part", "all", "--tokens", "1500"])
    database = FeatureDatabase.open(run)
    measured = [row for row in database.features().to_pylist() if row["purity"] is not None]
    assert measured
    for row in measured:
        assert row["fired"] >= 30
        assert row["documents"] >= 10
        strongest = [each for each in database.contexts(row["feature"]) if each["group"] == "strongest"][:10]
        peaks = [each["tokens"][each["peak"]].casefold() for each in strongest]
        assert row["purity"] == pytest.approx(max(map(peaks.count, peaks)) / len(peaks))
        assert row["token_r2"] <= 1
    shards = database.shards()
    text = Text.of(shards)
    halves = Halves.of(text.document, 0).first
    block = Block.gather(shards, text, 0, 40)
    dense = csc_array((block.value, block.place, block.starts), shape=(text.tokens, 40))
    expected = token_r2(dense, text.token_ids, halves & ~text.massive, ~halves & ~text.massive)
    assert [row["token_r2"] for row in measured] == pytest.approx([expected[row["feature"]] for row in measured])


def test_delphi_needs_codes(run: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit):
        main(["features", str(run), "--tokens", "200", "--no-keep-codes", "--delphi", str(run.parent / "delphi")])
    assert "has no codes, which delphi's cache is made of" in capsys.readouterr().err


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("sparse", [0.0, 1.0])
def test_promoted_tokens_are_those_of_the_unembedding(
    language_model: LanguageModel, dense: bool, sparse: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An RMS norm scales every coordinate by its weight; columns of few entries are added up row by row."""
    monkeypatch.setattr("expander_sae.features.columns._SPARSE", sparse)
    model = language_model.model
    assert isinstance(model, LlamaForCausalLM)
    weight = torch.linspace(0.5, 2, 16)
    before = model.model.norm.weight.data.clone()
    dictionary = DenseDictionary(16, 30) if dense else ExpanderDictionary(Support.make("uniform", m=16, n=30, d=3))
    model.model.norm.weight.data.copy_(weight)
    try:
        lens = Lens.of(language_model, 16, Spelling(language_model.tokenizer))
        assert lens is not None
        found = lens.promoted(dictionary, 2.0, 5, 25, 4)
    finally:
        model.model.norm.weight.data.copy_(before)
    columns = dictionary.to_dense().detach()[:, 5:25] / 2.0
    logits = (model.lm_head.weight @ (weight[:, None] * columns)).T[:, : len(language_model.tokenizer)]
    assert np.allclose(found["top_token_logits"], logits.topk(4).values, rtol=1e-4, atol=1e-6)
    assert np.allclose(found["bottom_token_logits"], logits.topk(4, largest=False).values, rtol=1e-4, atol=1e-6)
    best = language_model.tokenizer.decode([int(logits[0].argmax())], clean_up_tokenization_spaces=False)
    assert found["top_tokens"][0][0] == best


def test_a_layer_norm_takes_the_mean_away(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=len(tiny_tokenizer), n_positions=64)
    model = GPT2LMHeadModel(config).eval()
    norm = model.transformer.ln_f
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    language_model = LanguageModel(model, tiny_tokenizer, "gpt2", None, None, 16, len(tiny_tokenizer), 64)
    lens = Lens.of(language_model, 16, Spelling(language_model.tokenizer))
    assert lens is not None
    assert Lens.of(language_model, 64, Spelling(tiny_tokenizer)) is None
    dictionary = DenseDictionary(16, 6)
    found = lens.promoted(dictionary, 1.0, 0, 6, 3)
    columns = dictionary.to_dense().detach()
    steps = norm.weight[:, None] * (columns - columns.mean(dim=0))
    expected = (model.lm_head.weight @ steps).T.topk(3).values
    assert np.allclose(found["top_token_logits"], expected.detach(), rtol=1e-3, atol=1e-5)


def test_any_coder_and_signed_codes(run: Path) -> None:
    sae = SparseAutoencoder.load(run)
    signed = SparseAutoencoder(sae.dictionary, OMP(3, signed=True), provenance=sae.provenance)
    signed.save(run)
    main(["features", str(run), "--tokens", "300"])
    database = FeatureDatabase.open(run)
    rows = [row for row in database.features().to_pylist() if row["fired"]]
    assert any(row["mean"] < 0 for row in rows)
    assert all(0 < row["smallest"] <= row["largest"] for row in rows)
    for row in rows:
        strongest = database.contexts(row["feature"])[0]
        assert abs(strongest["activation"]) == row["largest"]
