"""A model may run in bfloat16: stores tell, go on in nothing else, and all processes of a harvest do the same."""

from __future__ import annotations

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expander_sae import ExpanderError
from expander_sae.activations.harvest import TextConfig, harvest
from expander_sae.activations.live import LiveActivations
from expander_sae.activations.models import LanguageModel, load_language_model
from expander_sae.activations.store import Store
from expander_sae.cli.main import main
from expander_sae.distribution import Group
from expander_sae.files import checksum
from tests.activations.prose import write_prose
from tests.processes import torchrun


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_prose(tmp_path)


def loaded(folder: Path, *dtypes: torch.dtype) -> LanguageModel:
    """The model in the first dtype, its last layer in the last one."""
    found = load_language_model(folder, dtype=dtypes[0], device="cpu")
    found.model.get_submodule("model.layers.2").to(dtypes[-1])
    return found


def harvested(folder: Path, text: TextConfig, out: Path, *precision: str, tokens: int = 300) -> Store:
    """What the command writes."""
    cut = ["--text", text.text, "--part", "all", "--context", "32", "--tokens-per-batch", "128"]
    main(["harvest", str(folder), "--out", str(out), "--layer", "1", "--tokens", str(tokens), *cut, *precision])
    return Store.open(out)


def refusal(folder: Path, text: TextConfig, out: Path, capsys: pytest.CaptureFixture[str], *precision: str) -> str:
    """What the command says to going on with a store."""
    with pytest.raises(SystemExit):
        harvested(folder, text, out, *precision, tokens=400)
    return capsys.readouterr().err


def test_the_store_holds_what_the_model_computes_in_bfloat16(
    tiny_model_folder: Path, text: TextConfig, tmp_path: Path
) -> None:
    store = harvested(tiny_model_folder, text, tmp_path / "bf16", "--precision", "bfloat16")
    assert (store.origin["precision"], store.precision, store.dtype) == ("bfloat16", "bfloat16", torch.float16)
    of_library = harvest(
        load_language_model(tiny_model_folder, dtype=torch.bfloat16), ["layers.1"],
        tokens=300, out=tmp_path / "library", text=text,
    )["layers.1"]  # fmt: skip
    whole = harvested(tiny_model_folder, text, tmp_path / "whole")
    assert whole.precision == "float32"
    rough, same, fine = (each[0:300] for each in (store, of_library, whole))
    assert torch.equal(rough.activations, same.activations)
    assert torch.equal(rough.token_ids, fine.token_ids)
    # Every number that was computed is one of bfloat16, and near the right one.
    assert torch.equal(rough.activations, rough.activations.to(torch.bfloat16).to(torch.float16))
    error = (rough.activations.float() - fine.activations.float()).square().mean()
    assert 0 < error < 1e-4 * fine.activations.float().square().mean()


@pytest.mark.parametrize(("begun", "then"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_store_goes_on_in_one_precision_only(
    begun: str, then: str, tiny_model_folder: Path, text: TextConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harvested(tiny_model_folder, text, tmp_path / "acts", "--precision", begun)
    said = refusal(tiny_model_folder, text, tmp_path / "acts", capsys, "--precision", then)
    assert f"differs in precision ('{begun}' there, '{then}' here); choose another folder" in said
    more = harvested(tiny_model_folder, text, tmp_path / "acts", "--precision", begun, tokens=400)
    assert (more.tokens, more.precision) == (400, begun)


def test_a_store_of_before_precisions_were_told_is_of_float32(
    tiny_model_folder: Path, text: TextConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harvested(tiny_model_folder, text, tmp_path / "acts")
    seal = tmp_path / "acts" / "manifest.json"
    manifest = json.loads(seal.read_text())
    del manifest["origin"]["precision"]
    seal.write_text(json.dumps({**manifest, "checksum": checksum(manifest)}))
    assert Store.open(tmp_path / "acts").precision == "float32"
    main(["info", str(tmp_path / "acts")])
    assert re.search(r"precision +│ float32", capsys.readouterr().out)
    said = refusal(tiny_model_folder, text, tmp_path / "acts", capsys, "--precision", "bfloat16")
    assert "precision ('float32' there, 'bfloat16' here)" in said
    assert harvested(tiny_model_folder, text, tmp_path / "acts", tokens=400).tokens == 400


@pytest.mark.parametrize(
    ("dtypes", "told"),
    [
        ((torch.float64,), "float64"),
        ((torch.float32, torch.bfloat16), "bfloat16 and float32"),
        ((torch.bfloat16, torch.float32), "bfloat16 and float32"),
    ],
)
def test_it_is_the_parameters_that_tell(
    dtypes: tuple[torch.dtype, ...], told: str, tiny_model_folder: Path, text: TextConfig, tmp_path: Path
) -> None:
    language_model = loaded(tiny_model_folder, *dtypes)
    store = harvest(language_model, ["layers.1"], tokens=100, out=tmp_path / "acts", text=text)["layers.1"]
    assert store.precision == language_model.precision == told


def test_training_from_a_model_goes_on_in_its_precision(tiny_model_folder: Path, text: TextConfig) -> None:
    def source(dtype: torch.dtype) -> LiveActivations:
        return LiveActivations(loaded(tiny_model_folder, dtype), "layers.1", text, batch=32, window=200)

    rough = source(torch.bfloat16)
    next(rough)
    assert rough.origin["precision"] == "bfloat16"
    source(torch.bfloat16).load_state_dict(rough.state_dict())
    with pytest.raises(ExpanderError, match=r"of activations with precision 'bfloat16', not 'float32'; resume with"):
        source(torch.float32).load_state_dict(rough.state_dict())


@pytest.mark.slow
def test_processes_in_two_precisions_are_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    done = torchrun("tests.activations.child_precision", str(tiny_model_folder), str(tmp_path))
    assert done.returncode != 0
    for rank in range(2):
        sentence = "The processes of this run have the model in float32, others in bfloat16; load it in the same dtype"
        assert f"rank {rank}: {sentence}" in done.stderr
    assert not (tmp_path / "acts").exists()


class Meeting:
    """Adds up what all members of a group bring, as torch does for real ones."""

    def __init__(self, world: int) -> None:
        self.barrier, self.brought = Barrier(world), dict[int, Tensor]()

    def total(self, rank: int, tensor: Tensor) -> Tensor:
        self.brought[rank] = tensor.clone()
        self.barrier.wait()
        tensor.copy_(torch.stack(list(self.brought.values())).sum(dim=0))
        self.barrier.wait()
        return tensor


@dataclasses.dataclass(frozen=True)
class Member(Group):
    """One of a group whose processes are threads."""

    meeting: Meeting = dataclasses.field(default_factory=lambda: Meeting(1))

    def add_up(self, tensor: Tensor) -> Tensor:
        return self.meeting.total(self.rank, tensor)

    def carrier(self, device: torch.device) -> torch.device:
        return torch.device("cpu")


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8")), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_every_process_hears_the_words_of_all(words: list[str]) -> None:
    meeting = Meeting(len(words))
    members = [Member(rank, len(words), meeting=meeting) for rank in range(len(words))]
    with ThreadPoolExecutor(len(words)) as threads:
        heard = list(threads.map(lambda member: member.words(words[member.rank]), members))
    assert heard == [words] * len(words)
