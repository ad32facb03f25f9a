"""A run that was stopped, however it was stopped, goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae.errors import ExpanderError, StoppedError
from expander_sae.files import checksum
from expander_sae.training import CheckpointError, Run, TensorBatches, TrainConfig, read_metrics, train
from tests.training.child_run import configs
from tests.training.failing import Failing, fail
from tests.training.planted import config, planted, same_tensors

TOKENS = 64 * 60


@pytest.fixture(scope="module")
def uninterrupted() -> list[Run]:
    return train(planted(4096)[1], configs(TOKENS), progress=False)


def same_runs(ours: list[Run], theirs: list[Run]) -> bool:
    return all(same_tensors(one.sae, other.sae) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("steps", [8, 29, 55])
def test_a_resumed_run_equals_the_uninterrupted_one(steps: int, tmp_path: Path, uninterrupted: list[Run]) -> None:
    _, x = planted(4096)
    sampled = 256  # batches that the start reads to get to know the data
    with pytest.raises(RuntimeError, match="power"):
        train(Failing(x, sampled + steps, fail), configs(TOKENS), out=tmp_path, progress=False)
    resumed = train(TensorBatches(x, batch=64), configs(TOKENS), out=tmp_path, resume=True, progress=False)
    assert same_runs(resumed, uninterrupted)
    for run in resumed:
        assert run.path is not None
        steps_written = [row["step"] for row in read_metrics(run.path / "metrics.jsonl")]
        assert steps_written == sorted(set(steps_written))
        assert run.sae.coder == uninterrupted[resumed.index(run)].sae.coder


def test_resuming_a_finished_run_gives_it_back(tmp_path: Path) -> None:
    _, x = planted(4096)
    first = train(x, config(), out=tmp_path, progress=False)
    held = sorted((tmp_path / "checkpoint").iterdir())
    (tmp_path / "checkpoint" / f"state-{'0' * 16}.safetensors").write_bytes(b"of a checkpoint before, not deleted yet")
    again = train(x, config(), out=tmp_path, resume=True, progress=False)
    assert same_tensors(first.sae, again.sae)
    assert again.metrics == first.metrics
    assert sorted((tmp_path / "checkpoint").iterdir()) == held


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path, uninterrupted: list[Run]) -> None:
    _, x = planted(4096)
    before = signal.getsignal(number)
    source = Failing(x, 256 + 20, lambda: os.kill(os.getpid(), number))
    with pytest.raises(StoppedError) as stop:
        train(source, configs(TOKENS), out=tmp_path, progress=False)
    assert signal.getsignal(number) is before
    done = json.loads((tmp_path / "checkpoint" / "checkpoint.json").read_text())["tokens"]
    assert str(stop.value) == (
        f"Stopped after {done:,} of {TOKENS:,} tokens; the same command with --resume (from Python, resume=True) "
        "goes on from there."
    )
    assert done in (20 * 64, 21 * 64)
    assert same_runs(train(x, configs(TOKENS), out=tmp_path, resume=True, progress=False), uninterrupted)


@pytest.mark.slow
def test_killed_and_terminated_processes(tmp_path: Path, uninterrupted: list[Run]) -> None:
    """One process is killed, the next one terminated, the third one finishes."""
    _strike(tmp_path, "anew", 256 + 17, signal.SIGKILL)
    output, code = _strike(tmp_path, "resume", 9, signal.SIGTERM)
    assert code == 1
    assert "--resume" in output
    output, code = _strike(tmp_path, "resume", None, signal.SIGKILL)
    assert code == 0, output
    for run in uninterrupted:
        finished = type(run.sae).load(tmp_path / run.config.name)
        assert same_tensors(finished, run.sae)


def _strike(folder: Path, how: str, at: int | None, number: signal.Signals) -> tuple[str, int]:
    """Run a child, and send it a signal when it takes this batch; its last words and its exit status."""
    threads = {name: str(torch.get_num_threads()) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.training.child_run", str(folder), str(TOKENS), how],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **threads},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == f"batch {at}":
            child.send_signal(number)
    _, errors = child.communicate(timeout=120)
    return errors, child.returncode


def refused(x: torch.Tensor, settings: TrainConfig | list[TrainConfig], out: Path, resume: bool = True) -> str:
    with pytest.raises(ExpanderError) as refusal:
        train(x, settings, out=out, resume=resume, progress=False)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("change", "difference"),
    [({"k": 2}, "k=3, not 2"), ({"d": None}, "d=4, not None"), ({"learning_rate": 0.5}, "learning_rate=None, not 0.5")],
)
def test_a_checkpoint_of_another_config_is_refused(change: dict[str, Any], difference: str, tmp_path: Path) -> None:
    _, x = planted(4096)
    train(x, config(), out=tmp_path, progress=False)
    assert f"was made with {difference}; resume with the same settings" in refused(x, config(**change), tmp_path)
    assert "is of 1 dictionaries, not of 2" in refused(x, [config(), config(seed=5)], tmp_path)


def test_a_folder_with_a_run_is_not_started_over(tmp_path: Path) -> None:
    _, x = planted(4096)
    train(x, config(), out=tmp_path, progress=False)
    assert "already holds a run" in refused(x, config(), tmp_path, resume=False)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    _, x = planted(4096)
    train(x, config(), out=tmp_path, progress=False)
    folder = tmp_path / "checkpoint"
    (tensors,) = folder.glob("state-*.safetensors")
    whole, text = tensors.read_bytes(), (folder / "checkpoint.json").read_text()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "was damaged or changed" in refused(x, config(), tmp_path)
    tensors.unlink()
    assert "is missing" in refused(x, config(), tmp_path)
    tensors.write_bytes(whole)
    (folder / "checkpoint.json").write_text(text.replace('"step": 20', '"step": 21'))
    assert "was edited or damaged" in refused(x, config(), tmp_path)
    (folder / "checkpoint.json").write_text(text[:-20])
    assert "was edited or damaged" in refused(x, config(), tmp_path)


def test_a_checkpoint_without_the_state_of_a_dictionary_is_refused(tmp_path: Path) -> None:
    _, x = planted(4096)
    train(x, config(tokens=64), out=tmp_path, progress=False)
    path = tmp_path / "checkpoint" / "checkpoint.json"
    content = {**json.loads(path.read_text()), "tensors": [[]]}
    path.write_text(json.dumps({**content, "checksum": checksum(content)}))
    assert "does not hold the state of every dictionary" in refused(x, config(tokens=64), tmp_path)


def test_other_activations_are_refused(tmp_path: Path) -> None:
    _, x = planted(4096)
    train(x, config(tokens=64), out=tmp_path, progress=False)
    assert "with shape [4096, 64], not [4096, 63]" in refused(x[:, :-1], config(tokens=64), tmp_path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from expander_sae import files

    _, x = planted(4096)
    settings = config(tokens=64 * 20, checkpoint_every=64 * 8)
    calls = []

    def full(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(path, data)

    original = files.replace_file
    monkeypatch.setattr(files, "replace_file", full)
    with pytest.raises(CheckpointError, match="cannot be written \\(No space left on device\\)"):
        train(x, settings, out=tmp_path, progress=False)
    monkeypatch.undo()
    resumed = train(x, settings, out=tmp_path, resume=True, progress=False)
    assert same_tensors(resumed.sae, train(x, settings, progress=False).sae)
