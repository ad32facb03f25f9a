"""Harvesting: run a language model over text and keep its activations in stores, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.hookpoints import Hookpoint, find_hookpoints, read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store import (
    Float16Overflow,
    ResumePoint,
    Store,
    StoreError,
    StoreWriter,
    bytes_needed,
    check_disk,
)
from expander_sae.activations.store.disk import TOKENS_PER_SHARD
from expander_sae.activations.texts import Batch, batches_by_length, documents, tokenise
from expander_sae.activations.texts.document import Part
from expander_sae.errors import ExpanderError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TextConfig:
    """Which text, and how it is cut."""

    text: str = "python"
    """The text: `python` (no download), a .txt, .jsonl or .parquet file, a folder of them, or a data set's name."""
    part: Part = "train"
    """The part of it: one document in twenty is held out for evaluation."""
    column: str = "text"
    """The field or column that holds the text, in files that have several."""
    context: int = 256
    """Tokens that the model sees at once, at most."""
    bos: bool = False
    """Put the tokenizer's BOS token in front of every piece; its activation is harvested like any other."""
    tokens_per_batch: int = 4096
    """Tokens that go through the model together, padding included."""


@dataclass(frozen=True)
class HarvestPlan:
    """What a harvest is about to do."""

    hookpoints: dict[Hookpoint, Path]
    """Where the activations of each hookpoint go."""
    width: dict[Hookpoint, int]
    bytes: int
    """What all stores together take on disk, at most."""


Report = Callable[[int], None]
"""Called with the number of tokens that the stores have."""


def plan_harvest(
    language_model: LanguageModel, hookpoints: list[str], tokens: int, out: Path, dtype: str = "float16"
) -> HarvestPlan:
    """The stores and their size on disk; refuses what cannot be done before anything is written."""
    if tokens < 1:
        raise ExpanderError(f"tokens must be at least 1, not {tokens}.")
    if dtype not in DTYPES:
        raise ExpanderError(f"dtype must be {' or '.join(DTYPES)}, not {dtype}.")
    found = find_hookpoints(language_model.model, hookpoints)
    probe = torch.zeros(1, 2, dtype=torch.int64, device=language_model.device)
    width = {
        hookpoint: activations.shape[-1]
        for hookpoint, activations in read_activations(language_model.model, found, probe).items()
    }
    # One hookpoint is the store itself; several are folders beside each other.
    paths = {hookpoint: out if len(found) == 1 else out / str(hookpoint).replace(":", "-") for hookpoint in found}
    needed = sum(bytes_needed(tokens, width[hookpoint], DTYPES[dtype]) for hookpoint in found)
    check_disk(out, needed)
    return HarvestPlan(paths, width, needed)


def harvest(
    language_model: LanguageModel,
    hookpoints: list[str],
    *,
    tokens: int,
    out: str | Path,
    text: TextConfig | None = None,
    dtype: str = "float16",
    tokens_per_shard: int = TOKENS_PER_SHARD,
    report: Report = lambda stored: None,
) -> dict[str, Store]:
    """The activations of `tokens` tokens at every matching hookpoint, by its name.

    Running it again goes on after the last complete shard. If the text ends first the stores hold what there was.
    """
    text = text or TextConfig()
    plan = plan_harvest(language_model, hookpoints, tokens, Path(out), dtype)
    with ExitStack() as stack:
        writers = {
            hookpoint: stack.enter_context(
                StoreWriter(
                    path,
                    width=plan.width[hookpoint],
                    dtype=DTYPES[dtype],
                    origin=_origin(language_model, hookpoint, text),
                    tokens_per_shard=tokens_per_shard,
                    tokens=tokens,
                )
            )
            for hookpoint, path in plan.hookpoints.items()
        }
        _fill(language_model, writers, tokens, text, report)
    return {str(hookpoint): Store.open(path) for hookpoint, path in plan.hookpoints.items()}


def _origin(language_model: LanguageModel, hookpoint: Hookpoint, text: TextConfig) -> dict[str, Any]:
    """What a store says of where it comes from; a harvest with another origin cannot go on with it."""
    return {
        "model": language_model.name,
        "revision": language_model.revision,
        "hookpoint": str(hookpoint),
        **asdict(text),
    }


def _fill(
    language_model: LanguageModel,
    writers: dict[Hookpoint, StoreWriter],
    tokens: int,
    text: TextConfig,
    report: Report,
) -> None:
    start = _common_start(writers)
    stored = start.tokens
    report(stored)
    skipped = 0 if start.cursor is None else int(start.cursor["batches"])
    for number, batch in enumerate(islice(_batches(language_model, text), skipped, None), start=skipped + 1):
        if stored >= tokens:
            break
        wanted = min(batch.tokens, tokens - stored)
        ids = batch.ids.to(language_model.device)
        for hookpoint, activations in read_activations(language_model.model, list(writers), ids).items():
            _append(writers[hookpoint], hookpoint, batch, activations.cpu(), wanted, {"batches": number})
        stored += wanted
        report(stored)
    for writer in writers.values():
        writer.finish()


def _common_start(writers: dict[Hookpoint, StoreWriter]) -> ResumePoint:
    """Where the store that has come least far goes on; the others go back there with it."""
    start = min((writer.resume_point() for writer in writers.values()), key=lambda point: point.tokens)
    for writer in writers.values():
        writer.go_back_to(start)
    return start


def _batches(language_model: LanguageModel, text: TextConfig) -> Iterator[Batch]:
    if language_model.context is not None and text.context > language_model.context:
        raise ExpanderError(
            f"The context of {text.context} tokens is longer than the {language_model.context} that "
            f"{language_model.name} was made for."
        )
    found = documents(text.text, part=text.part, column=text.column)
    pieces = tokenise(found, language_model.tokenizer, context=text.context, bos=text.bos)
    return batches_by_length(pieces, text.tokens_per_batch)


def _append(
    writer: StoreWriter,
    hookpoint: Hookpoint,
    batch: Batch,
    activations: Float[Tensor, "pieces length m"],
    wanted: int,
    cursor: dict[str, int],
) -> None:
    """The first `wanted` tokens of a batch, piece after piece, without the padding."""
    mask = batch.mask
    try:
        writer.append(
            activations[mask][:wanted],
            batch.ids[mask][:wanted],
            batch.document[:, None].expand(mask.shape)[mask][:wanted],
            batch.position[mask][:wanted],
            cursor=cursor,
        )
    except Float16Overflow as error:
        raise StoreError(f"At {hookpoint}: {error} Harvest into a new folder with --dtype bfloat16.") from error
    except StoreError as error:
        raise StoreError(f"At {hookpoint}: {error}") from error
