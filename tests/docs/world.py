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
    "prose.jsonl": "prose.jsonl",
    "words.jsonl": "words.jsonl",
    "readable": "runs/readable",
    "wide": "runs/wide",
    "dense": "runs/dense",
    "topk": "runs/topk",
    "uniform": "runs/uniform",
    "paper": "tied.pt",
    "saelens": "saelens",
}
"""What may be presupposed, and where it lies in the stock."""
TRAINED = {
    "readable": "--d 4",
    "wide": "--d 8",
    "dense": "",
    "topk": "--d 4 --coder topk",
    "uniform": "--d 4 --coder omp --construction uniform",
}


def make_stock(folder: Path, model: Path) -> None:
    """Everything of STOCK, trained on the activations of a tiny model."""
    text = write_prose(folder, documents=400).text
    lines = [json.loads(line)["text"] for line in Path(text).read_text().splitlines()]
    labelled = [{"text": line, "spans": [[0, 3, "article"], [4, 9, "noun"]]} for line in lines]
    (folder / "words.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    harvest = ["--hookpoint", "layers.1", "--tokens", "2000", "--text", text, "--context", "32"]
    main(["harvest", str(model), "--out", str(folder / "acts"), *harvest])
    for name, options in TRAINED.items():
        train = f"--n 64 --k 4 --tokens 1024 --batch 128 --no-progress {options}".split()
        main(["train", str(folder / "acts"), "--out", str(folder / "runs" / name), *train])
        main(["features", str(folder / "runs" / name), "--store", str(folder / "acts")])
    main(["export", str(folder / "runs" / "topk"), "--to", "saelens", "--out", str(folder / "saelens")])
    mask = torch.rand(16, 64) < 0.3
    keys = {"mask": mask, "decoder_vals": torch.randn(16, 64) * mask, "b_dec": torch.zeros(16), "b_enc": torch.zeros(64)}
    torch.save(keys, folder / "tied.pt")


def furnish(folder: Path, stock: Path, presumed: dict[str, str]) -> None:
    """Put copies of what a page presupposes where it expects them."""
    for name, kind in presumed.items():
        source, place = stock / STOCK[kind], folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copyfile(source, place)
