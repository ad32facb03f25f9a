"""What is written for other programs is what they read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from expander_sae.errors import ExpanderError
from expander_sae.training import read_metrics, train
from tests.training.planted import config, planted

X = planted(2048)[1]


def fail(sae: object) -> dict[str, float]:
    raise RuntimeError("the power went out")


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_shows_the_metrics(tmp_path: Path) -> None:
    run = train(X, config(), out=tmp_path, progress=False, also_log=["tensorboard"])
    shown = events(tmp_path / "tensorboard")
    assert shown.keys() == run.metrics[0].keys()
    for name, points in shown.items():
        assert [step for step, _ in points] == [row["tokens"] for row in run.metrics]
        assert [value for _, value in points] == pytest.approx([row[name] for row in run.metrics], rel=1e-6)


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    """The run dies after a checkpoint at step 7 and a row at step 10, and logs every step when it goes on."""
    settings = config(checkpoint_every=7 * 64)
    with pytest.raises(RuntimeError, match="power"):
        train(X, settings, out=tmp_path, progress=False, also_log=["tensorboard"], probe=fail, probe_every=11 * 64)
    assert [step for step, _ in events(tmp_path / "tensorboard")["fvu"]] == [5 * 64, 7 * 64, 10 * 64]
    run = train(X, settings, out=tmp_path, resume=True, progress=False, also_log=["tensorboard"])
    assert [step for step, _ in events(tmp_path / "tensorboard")["fvu"]] == [row["tokens"] for row in run.metrics]


@pytest.mark.slow
def test_wandb_keeps_the_metrics_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")  # 60 MB, too heavy to ask of everyone who works on this
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train(X, config(), out=tmp_path, progress=False, also_log=["wandb"])
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written = file.read_bytes()  # wandb has no reader of its own for it; names and numbers are in it as text
    for row in run.metrics:
        for name in ("fvu", "grad_norm"):
            assert name.encode() in written
            assert json.dumps(row[name]).encode() in written


def test_metrics_that_cannot_be_written_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("hello")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ExpanderError, match=r"cannot be written \((Not a directory|File exists)\)"):
            train(X, config(), out=out, progress=False)
    assert (tmp_path / "file").read_text() == "hello"


def test_damaged_metrics_are_one_sentence(tmp_path: Path) -> None:
    for content in (b"{\n", b"[]\n", b"{}\n", b"\xff\n", b'{"tokens": "x"}\n', b"[" * 100_000 + b"\n"):
        (tmp_path / "metrics.jsonl").write_bytes(content)
        with pytest.raises(ExpanderError, match=r"metrics\.jsonl was edited or damaged"):
            read_metrics(tmp_path / "metrics.jsonl")


def test_wandb_without_a_key_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(Exception):
        pass

    def init(**_: object) -> None:
        raise Refused("No API key configured.\nUse `wandb login`")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Error=Refused))
    with pytest.raises(ExpanderError, match=r"\(No API key configured. Use `wandb login`\); run `wandb login`"):
        train(X, config(), out=tmp_path, progress=False, also_log=["wandb"])
