"""The examples run, on a tiny model, and say what our own hooks say."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import expander_sae as xs
from tests.tiny import make_model, make_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT, FEATURE = "The farmer opened the gate.", 3


@pytest.fixture
def model_folder(tmp_path):
    folder, tokenizer = tmp_path / "model", make_tokenizer()
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    dictionary = xs.ExpanderDictionary(xs.Support.make("uniform", m=16, n=40, d=4, seed=0), torch.randn(40, 4))
    sae = xs.SparseAutoencoder(dictionary, xs.OMP(4), provenance={"activations": {"hookpoint": "layers.1"}})
    sae.save(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("package", ["nnsight", "transformer_lens"])
def test_an_example_says_what_our_own_hooks_say(package, model_folder, run):
    pytest.importorskip(package)
    command = [sys.executable, EXAMPLES / f"with_{package}.py", model_folder, run, str(FEATURE), TEXT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sae, model = xs.SparseAutoencoder.load(run), xs.load_language_model(str(model_folder))
    ids = torch.tensor([model.tokenizer(("<bos>" if package == "transformer_lens" else "") + TEXT)["input_ids"]])
    with torch.no_grad():
        with sae.attach(model, "layers.1", special=()) as attached:
            before = model.model(input_ids=ids).logits
            codes = attached.codes()
        with sae.attach(model, "layers.1", edits=[xs.Add(FEATURE, 8.0)], special=()):
            after = model.model(input_ids=ids).logits
    assert f"logits moved by {float((after - before).abs().max()):.3f} at most" in done.stdout
    for value, index in zip(codes.values[0], codes.indices[0], strict=True):
        best = value.abs().argmax()
        assert f"feature {int(index[best])} at {float(value[best]):.2f}" in done.stdout
