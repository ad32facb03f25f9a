"""What the pages presuppose, made small: texts, stores of a tiny model, and dictionaries trained on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from expander_sae.cli.main import main
from tests.activations.prose import write_prose

STOCK = {
    "acts": "acts",
    "text": "train.jsonl",
    "labels": "words.jsonl",
    "readable": "runs/readable",
    "wide": "runs/wide",
    "dense": "runs/dense",
    "narrow": "runs/narrow",
    "topk": "runs/topk",
    "uniform": "runs/uniform",
    "paper": "tied.pt",
}
"""What may be presupposed, and where it lies in the stock."""
TRAINED = {
    "readable": "--d 4",
    "wide": "--d 8 --objective fidelity",
    "dense": "",
    "narrow": "--n 32",
    "topk": "--d 4 --coder topk",
    "uniform": "--d 4 --coder omp --construction uniform",
}


def make_stock() -> None:
    """Everything of STOCK in this folder, from the activations of the model that is here under the name MODEL."""
    text = Path(write_prose(Path(), documents=400).text).rename("train.jsonl")
    lines = [json.loads(line)["text"] for line in text.read_text().splitlines()]
    labelled = [{"text": line, "spans": [[0, 3, "article"], [4, 9, "noun"]]} for line in lines]
    Path("words.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    main(["harvest", "MODEL", "--out", "acts", "--hookpoint", "layers.1", "--tokens", "2000", "--text", str(text)])
    for name, options in TRAINED.items():
        train = f"--n 64 --k 4 --tokens 1024 --batch 128 --no-progress {options}".split()
        main(["train", "acts", "--out", f"runs/{name}", *train])
        main(["features", f"runs/{name}", "--store", "acts"])
    mask = torch.rand(16, 64) < 0.3
    values = {"decoder_vals": torch.randn(16, 64) * mask, "b_dec": torch.zeros(16), "b_enc": torch.zeros(64)}
    torch.save({"mask": mask, **values}, "tied.pt")


def furnish(folder: Path, stock: Path, presumed: dict[str, str]) -> None:
    """Put copies of what a page presupposes where it expects them."""
    for name, kind in presumed.items():
        source, place = stock / STOCK[kind], folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copyfile(source, place)
