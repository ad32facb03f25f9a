"""Every format that is read: where there is one of it, and what reads all of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import torch
from pyarrow import parquet

from expander_sae import SparseAutoencoder
from expander_sae.activations.models import load_language_model
from expander_sae.activations.texts.files import read_file
from expander_sae.cli.inputs import coder_asked_for
from expander_sae.evaluation.quality.judge.client import Judge
from expander_sae.evaluation.quality.keeping import kept
from expander_sae.evaluation.quality.labels import labels_from_spans
from expander_sae.evaluation.quality.results import Quality
from expander_sae.features import FeatureDatabase
from expander_sae.files import read_checked
from expander_sae.interop.formats import export_to, import_from
from expander_sae.reporting.dashboard.measures import measures_in
from expander_sae.server.application import application
from expander_sae.server.live import Live
from expander_sae.studies.encoders import read_encoder
from expander_sae.training.metrics import read_metrics
from tests.hostile.children import command
from tests.hostile.damage import READERS, read_autoencoder
from tests.hostile.world import World

Reader = Callable[[Path], object]
EXPORTS = {"saelens": "topk:4", "saelens_sparse": "omp:4", "dictionary_learning": "jumprelu", "sparsify": "topk:4"}
JSON = {".json", ".jsonl"}
"""Ends of names of files whose entries are changed, and not only their bytes."""


@dataclass(frozen=True)
class Format:
    """A folder or a file of some format."""

    place: Path
    read: Reader
    files: str = "*"
    """Those of the folder, however deep, that may be forged."""
    sealed: str = ""
    """How its JSON files carry a checksum: of the `content`, of content `and name`, or not at all."""

    def paths(self) -> list[Path]:
        """The files that may be forged."""
        if self.place.is_file():
            return [self.place]
        return sorted(path for path in self.place.rglob(self.files) if path.is_file() and path.suffix != ".md")


def every_format(world: World, place: Path) -> dict[str, Format]:
    """One of each below the folder `place`, made by the commands themselves."""
    place.mkdir(parents=True, exist_ok=True)
    for name, arguments in _commands(world, place).items():
        ended = command(arguments, place).wait()
        assert ended.status == 0, (name, ended)
    for name in ("run", "dense", "store", "study"):
        world.copy(name, place / name)
    found = {name: Format(world.copy(where, place / "read" / name), read, *_SEALED.get(name, ()))
             for name, (where, read) in READERS.items()}  # fmt: skip
    found |= {f"{name} as an autoencoder": Format(place / name, read_autoencoder, "[cs][oa][ne][-f]*", "content")
              for name in ("packed", "cut", "tuned")}  # fmt: skip
    found["checkpoint of a fine-tuning"] = Format(place / "tuned", READERS["checkpoint"][1], "*/*", "content")
    found |= _foreign(world, place)
    found |= _texts(world, place)
    found |= _kept(world, place)
    database = FeatureDatabase.open(place / "run" / "features")
    language_model = load_language_model(world.path("model"))
    live = Live(database, SparseAutoencoder.load(place / "run"), language_model, "layers.1")
    found["request"] = Format(_request(place), lambda path: answered(live, path))
    tokenizer = world.copy("model", place / "read" / "tokenizer")
    found["tokenizer"] = Format(tokenizer, load_language_model, "tokenizer*")
    found["weights"] = Format(world.copy("model", place / "read" / "weights"), load_language_model, "*.safetensors")
    return found


_SEALED = {"study": ("*.json", "and name"), "checkpoint": ("checkpoint/*", "content"), "store": ("*", "content"),
           "feature database": ("*", "content"), "autoencoder": ("[cs][oa][ne][-f]*", "content"),
           "dense autoencoder": ("[cs][oa][ne][-f]*", "content")}  # fmt: skip


def _commands(world: World, place: Path) -> Mapping[str, list[str]]:
    run, pursued = world.path("run"), world.path("pursued")
    return {
        "packed": ["compress", run, str(place / "packed"), "--values", "int4"],
        "cut": ["cut", pursued, world.path("store"), "--out", str(place / "cut"), "--d", "2"],
        "tuned": world.finetune(str(place / "tuned")),
        "quality": world.quality(str(place / "quality")),
        "amortisation": world.study("amortisation", str(place / "amortisation")),
    }


def _foreign(world: World, place: Path) -> dict[str, Format]:
    """Folders and files of other libraries."""
    sae, found = SparseAutoencoder.load(world.path("run")), dict[str, Format]()
    for to, coder in EXPORTS.items():
        export_to(sae.with_coder(coder_asked_for(coder, False)), to, place / to)  # type: ignore[arg-type]
        found[to] = Format(place / to, import_from)
    n, m = sae.n, sae.m
    paper = {"mask": torch.ones(m, n), "decoder_vals": torch.randn(m, n), "b_dec": torch.zeros(m),
             "b_enc": torch.zeros(n)}  # fmt: skip
    openai = {"pre_bias": torch.zeros(m), "latent_bias": torch.zeros(n), "encoder.weight": torch.randn(n, m),
              "decoder.weight": torch.randn(m, n), "activation": "ReLU"}  # fmt: skip
    torch.save(paper, place / "paper.pt")
    torch.save(openai, place / "openai.pt")
    found["paper.pt"] = Format(place / "paper.pt", lambda path: import_from(path, k=3))
    found["openai.pt"] = Format(place / "openai.pt", import_from)
    return found


def _texts(world: World, place: Path) -> dict[str, Format]:
    """Corpora, labels, and whatever else is text."""
    texts = [json.loads(line)["text"] for line in Path(world.path("text.jsonl")).read_text().splitlines()[:4]]
    (place / "text.jsonl").write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts))
    (place / "text.txt").write_text("\n\n".join(texts))
    parquet.write_table(pyarrow.table({"text": texts, "id": list(range(len(texts)))}), place / "text.parquet")
    found = {name: Format(place / name, lambda path: list(read_file(path, "x", "text")))
             for name in ("text.jsonl", "text.txt", "text.parquet")}  # fmt: skip
    held_out = kept(next((place / "quality").glob("*.safetensors")))
    spans = [[0, 5, "begin"], [2, 9, "more"]]
    labelled = (json.dumps({"text": text, "spans": spans}) + "\n" for text in held_out.text.documents)
    (place / "labels.jsonl").write_text("".join(labelled))
    found["labels"] = Format(place / "labels.jsonl", lambda path: labels_from_spans(path, held_out))
    (place / "answers.jsonl").write_text('{"asked": "x", "answer": "y"}\n' * 2)
    found["answers"] = Format(place / "answers.jsonl", lambda path: Judge("http://localhost:1", "x", path).answers)
    found["metrics"] = Format(world.copy("run", place / "read" / "metrics") / "metrics.jsonl", read_metrics)
    return found


def _kept(world: World, place: Path) -> dict[str, Format]:
    """What quality and studies keep for the next time, and what a dashboard reads of them."""
    quality, amortisation = place / "quality", place / "amortisation"
    measured = next(path for path in sorted(quality.rglob("*.json")) if "quality" in json.loads(path.read_bytes()))
    report = next(path for path in sorted(quality.glob("*.json")))
    encoder = next((amortisation / "networks").iterdir())
    sae = SparseAutoencoder.load(amortisation / "trained" / encoder.stem)
    return {
        "held-out text": Format(next(quality.glob("*.safetensors")), kept),
        "measured quality": Format(measured, _quality, sealed="and name"),
        "measures": Format(report, lambda path: measures_in(path, "run")),
        "encoder": Format(encoder, lambda path: read_encoder(path, sae, 8)),
    }


def _quality(path: Path) -> object:
    """As a session reads it, to which what cannot be read is not known."""
    try:
        return Quality.from_json(read_checked(path)["quality"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _request(place: Path) -> Path:
    path = place / "request.json"
    edit = {"kind": "add", "feature": 3, "strength": 1.0, "from": "generated"}
    asked = {"text": "The sun", "prompt": "The sun", "edits": [edit], "tokens": 2, "temperature": 0.5, "seed": 1}
    path.write_text(json.dumps({"path": "/api/encode", "method": "POST", "asked": asked}))
    return path


def answered(live: Live, path: Path) -> list[Any]:
    """What the server says to a request, whose path is the entry `path` if there is one, and whose body all of it."""
    body = path.read_bytes()
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = {}
    content = content if isinstance(content, dict) else {}
    where = content.get("path")
    asked = content.get("asked")
    said: list[Any] = []
    for target in [where] if isinstance(where, str) and not where.startswith("/api") else ["/api/encode", "/api/steer"]:
        if isinstance(asked, dict) and isinstance(asked.get("tokens"), int | float) and asked["tokens"] > 3:
            asked["tokens"] = 3  # so that it does not take long
        sent = iter([{"type": "http.request", "body": body if asked is None else json.dumps(asked).encode()}])

        async def receive(sent: Any = sent) -> Any:
            return next(sent, None) or await asyncio.sleep(60, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http", "method": "POST" if target.startswith("/api") else "GET", "path": target, "root_path": "",
            "query_string": b"", "headers": [(b"host", b"here"), (b"x-token", b"token")], "http_version": "1.1",
        }  # fmt: skip
        asyncio.run(application(live, path.parent, "token", {"here"})(scope, receive, send))
    return said
