"""Loading language models: what comes back, and one sentence for everything that cannot be loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import errors
from transformers import BertConfig, BertForMaskedLM, LlamaForCausalLM, LlamaModel, T5Config

from expander_sae.activations.models import cross_entropy, load_language_model, name_of
from expander_sae.cli.main import main
from expander_sae.errors import ExpanderError


def test_a_folder_comes_back_ready(tiny_model_folder: Path, tiny_model: LlamaForCausalLM) -> None:
    loaded = load_language_model(tiny_model_folder, device="cpu")
    assert (loaded.width, loaded.vocabulary, loaded.context) == (16, tiny_model.config.vocab_size, 64)
    assert (loaded.name, loaded.revision, loaded.folder) == (str(tiny_model_folder), None, tiny_model_folder)
    assert loaded.parameters == sum(parameter.numel() for parameter in tiny_model.parameters())
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    ids = torch.arange(5, 15)[None]
    assert torch.equal(loaded.model(ids).logits, tiny_model(ids).logits)


def test_dtype_is_that_asked_for(tiny_model_folder: Path) -> None:
    loaded = load_language_model(tiny_model_folder, dtype=torch.bfloat16, device="cpu")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}


def test_cross_entropy_is_the_mean_of_negative_log_probabilities(tiny_model_folder: Path) -> None:
    loaded = load_language_model(tiny_model_folder, device="cpu")
    ids = loaded.tokenizer("the old gate", add_special_tokens=False)["input_ids"]
    log_probabilities = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = -sum(log_probabilities[step, token] for step, token in enumerate(ids[1:])) / (len(ids) - 1)
    assert cross_entropy(loaded, "the old gate") == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ExpanderError, match="2 tokens"):
        cross_entropy(loaded, "a")


def test_local_folders_need_no_network(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    load_language_model(str(tiny_model_folder), device="cpu")


def test_smollm2_is_not_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPANDER_CACHE", str(tmp_path))
    with pytest.raises(ExpanderError, match="run `expander model smollm2`"):
        load_language_model("smollm2")


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "~/no such model", "/nowhere/at/all"])
def test_paths_that_are_not_there(name: str) -> None:
    with pytest.raises(ExpanderError, match="There is no folder"):
        load_language_model(name)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"GGUF")
    with pytest.raises(ExpanderError, match="is a file"):
        load_language_model(tmp_path / "model.bin")


def test_a_gguf_file_that_is_cut_short(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ExpanderError, match="cannot be loaded as a language model"):
        load_language_model(tmp_path / "model.gguf")


def test_a_model_without_a_tokenizer(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ExpanderError, match="has no tokenizer"):
        load_language_model(tmp_path)


def test_models_that_do_not_predict_the_next_token(tmp_path: Path, tiny_model_folder: Path) -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertForMaskedLM(BertConfig(vocab_size=20, **small)).save_pretrained(tmp_path / "bert")
    T5Config(d_model=8).save_pretrained(tmp_path / "t5")
    base = LlamaModel(transformers.AutoConfig.from_pretrained(tiny_model_folder))
    base.save_pretrained(tmp_path / "base")  # it would load, with a head left random were it not tied
    for folder, kind in (("bert", "BertForMaskedLM"), ("t5", "t5"), ("base", "LlamaModel")):
        with pytest.raises(ExpanderError, match=f"is a {kind}, not a causal language model"):
            load_language_model(tmp_path / folder)


def test_missing_weights_are_not_left_random(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ExpanderError, match=r"lack model\.layers\.3\."):
        load_language_model(folder)


def test_damaged_weights(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole.replace(b'"shape":[', b'"shape":{', 1))
    with pytest.raises(ExpanderError, match="cannot be loaded as a language model"):
        load_language_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ExpanderError, match="cannot be loaded as a language model"):
        load_language_model(folder)


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (errors.LocalEntryNotFoundError("offline"), "cannot be reached"),
        (errors.HFValidationError("bad"), "cannot be loaded"),
        # Made without their constructors, which want the answer of a server.
        (errors.GatedRepoError.__new__(errors.GatedRepoError), "accept its terms"),
        (errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError), "neither a folder here nor"),
    ],
)
def test_the_hub_fails(cause: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("many\nlines") from cause

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    with pytest.raises(ExpanderError, match=sentence) as caught:
        load_language_model("someone/some-model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        ImportError("_C.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_cannot_be_had_is_no_fault_of_the_model(cause: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("cannot be read") from cause

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    with pytest.raises(MemoryError):
        load_language_model("someone/some-model")


class Hub:
    """Plays the hub: every name is the tiny model, at one commit; keeps what revisions were asked for."""

    COMMIT = "c" * 40

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str | None]] = []
        for kind in (transformers.AutoConfig, transformers.AutoTokenizer, transformers.AutoModelForCausalLM):
            monkeypatch.setattr(kind, "from_pretrained", self._instead_of(kind.from_pretrained, folder))

    def _instead_of(self, real: Callable[..., Any], folder: Path) -> Callable[..., Any]:
        def load(name: str, *, revision: str | None = None, **options: Any) -> Any:
            if Path(name) != folder:  # from_pretrained calls others of its kind, with what it was given
                self.asked.append((name, revision))
            found = real(folder, **{**options, "local_files_only": True})
            if isinstance(found, transformers.PretrainedConfig):
                found._commit_hash = self.COMMIT
            return found

        return load


@pytest.mark.parametrize(("given", "pin"), [("someone/model@v1.0", "v1.0"), ("model@pr/7", "pr/7"), ("model", None)])
def test_the_whole_model_is_of_one_commit_that_is_recorded(
    given: str, pin: str | None, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tiny_model_folder, monkeypatch)
    loaded = load_language_model(given, device="cpu")
    name = given.partition("@")[0]
    assert hub.asked == [(name, pin), (name, Hub.COMMIT), (name, Hub.COMMIT)]
    assert (loaded.name, loaded.revision) == (name, Hub.COMMIT)
    assert name_of({"model": loaded.name, "revision": loaded.revision}) == f"{name}@{Hub.COMMIT}"


def test_what_is_not_on_the_hub_has_no_revision(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model@home")
    loaded = load_language_model(folder, device="cpu")
    assert (loaded.name, loaded.revision) == (str(folder), None)
    assert name_of({"model": loaded.name, "revision": None}) == str(folder)
    assert name_of({"model": "smollm2", "revision": "hash"}) == "smollm2"
    with pytest.raises(ExpanderError, match="smollm2 comes from a package and has one version only"):
        load_language_model("smollm2@main")
    with pytest.raises(ExpanderError, match="names no revision behind the @"):
        load_language_model("someone/model@")
    with pytest.raises(ExpanderError, match="There is no folder"):
        load_language_model("./nowhere@main")


def test_device_that_is_not_there(tiny_model_folder: Path) -> None:
    for device in ("cuda:99", "no-such-device"):
        with pytest.raises(ExpanderError, match="is not available on this machine"):
            load_language_model(tiny_model_folder, device=device)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expander_sae.errors.find_spec", lambda package: None if package == "transformers" else package)
    with pytest.raises(ExpanderError, match=r"needs transformers, .* pip install 'expander-sae\[lm\]'"):
        load_language_model("smollm2")


def test_command_prints_what_the_model_is(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["model", str(tiny_model_folder)])
    printed = capsys.readouterr().out
    assert "nats per token" in printed
    assert "parameters" in printed


def test_command_fails_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["model", "./nowhere"])
    assert capsys.readouterr().err.startswith("expander: There is no folder")
