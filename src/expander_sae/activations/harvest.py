"""Harvesting: run a language model over text and keep its activations in stores, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.distributed import (
    Activations,
    activations_in_order,
    activations_of,
    check_one_precision,
)
from expander_sae.activations.hookpoints import Hookpoint, find_hookpoints, read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store import (
    Float16Overflow,
    Store,
    StoreError,
    StoreWriter,
    bytes_needed,
    check_disk,
)
from expander_sae.activations.store.manifest import DTYPES, STORE, read_manifest
from expander_sae.activations.store.prefetch import Prefetched
from expander_sae.activations.store.shards import TOKENS_PER_SHARD
from expander_sae.activations.texts import Batch, Pieces, batches_by_length, documents, pinned, puts_bos, tokenise
from expander_sae.activations.texts.files import Part
from expander_sae.checks import Count, at_least, check_fields
from expander_sae.distribution import Group, current_group
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory, check_time

TEXT_AHEAD = 8
"""Batches of text that are ready before the model gets to them. Text is cut up, the model works and the store is
written each in a thread of its own, so that a quick model does not wait."""
BYTES_AHEAD = 1 << 28
"""Of activations that wait to be written, so that the model need not wait while a shard is."""
FINER = "float16"
"""What activations are stored in where they fit: it has eight times the precision of bfloat16."""
HEADROOM = 8.0
"""How many times larger than the first activations of a text others may be."""


@dataclass(frozen=True)
class TextConfig:
    """Which text, and how it is cut."""

    text: str = "python"
    """The text: `python` (no download), a .txt, .jsonl or .parquet file, a folder of them, or the name of a data set on
    the Hugging Face hub, as name, name:config or name:config@revision."""
    part: Part = "train"
    """The part of it: one document in twenty is held out for evaluation."""
    column: str = "text"
    """The field or column that holds the text, in files that have several."""
    context: Count = 256
    """Tokens that the model sees at once, at most."""
    bos: bool | None = None
    """Put the tokenizer's BOS token in front of every piece; its activation is harvested like any other. By default
    where the tokenizer does so by itself: some models are broken without it."""
    tokens_per_batch: Count = 4096
    """Tokens that go through the model together, padding included."""

    def __post_init__(self) -> None:
        check_fields(self)


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
    language_model: LanguageModel, hookpoints: list[str], tokens: int, out: Path, dtype: str | None = None
) -> HarvestPlan:
    """The stores and their size on disk; refuses what cannot be done before anything is written."""
    at_least("tokens", tokens, 1)
    if dtype not in (None, *DTYPES):
        raise ExpanderError(f"dtype must be {' or '.join(DTYPES)}, not {dtype}.")
    found = find_hookpoints(language_model.model, hookpoints)
    probe = torch.zeros(1, 2, dtype=torch.int64, device=language_model.device)
    width = {
        hookpoint: activations.shape[-1]
        for hookpoint, activations in read_activations(language_model.model, found, probe).items()
    }
    # One hookpoint is the store itself; several are folders beside each other.
    paths = {hookpoint: out if len(found) == 1 else out / str(hookpoint).replace(":", "-") for hookpoint in found}
    needed = sum(bytes_needed(tokens, width[hookpoint], DTYPES[dtype or FINER]) for hookpoint in found)
    check_disk(out, needed)
    place = str(language_model.device)
    check_time(
        f"A harvest of {tokens:,} tokens", float(tokens) * language_model.parameters, place, "ask for fewer tokens"
    )
    return HarvestPlan(paths, width, needed)


def harvest(
    language_model: LanguageModel,
    hookpoints: list[str],
    *,
    tokens: int,
    out: str | Path,
    text: TextConfig | None = None,
    dtype: str | None = None,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    report: Report = lambda stored: None,
) -> dict[str, Store]:
    """The activations of `tokens` tokens at every matching hookpoint, by its name.

    They are kept in float16, or where the first of them come near what that can hold in bfloat16, unless `dtype` says.
    The model computes in the precision that it was loaded in, which stores tell.

    Running it again goes on after the last complete shard. If the text ends first the stores hold what there was. Under
    torchrun the processes share the model's work and the first one writes; the stores are those of one process.
    """
    text = settled_text(language_model, text or TextConfig())
    group = current_group()
    check_one_precision(language_model, group)
    plan = plan_harvest(language_model, hookpoints, tokens, Path(out), dtype)
    batches = text_batches(language_model, text)
    begun = _begun(plan, dtype) if group.writes else {}
    first: Activations | None = None
    if group.writes and len(begun) < len(plan.hookpoints):
        batch = next(batches)
        first, batches = activations_of(language_model, plan.hookpoints, batch), chain([batch], batches)
        begun = {each: _dtype_for(rows) for each, rows in first.items()} | begun
    with ExitStack() as stack:
        writers = {
            hookpoint: stack.enter_context(
                StoreWriter(
                    path,
                    width=plan.width[hookpoint],
                    dtype=begun[hookpoint],
                    origin=origin_at(language_model, hookpoint, text),
                    tokens_per_shard=tokens_per_shard,
                    tokens=tokens,
                )
            )
            for hookpoint, path in plan.hookpoints.items()
            if group.writes
        }
        start = _common_start(writers, language_model.device, group)
        text_ahead = Prefetched(_with_tokens(islice(batches, start.batches, None), tokens - start.tokens), TEXT_AHEAD)
        stack.callback(text_ahead.close)
        found = _on_cpu(activations_in_order(language_model, plan.width, text_ahead, group, first))
        if group.world == 1:  # processes talk to each other from one thread alone
            bytes_at_most = 4 * text.tokens_per_batch * sum(plan.width.values())
            found = Prefetched(found, max(1, BYTES_AHEAD // bytes_at_most))
            stack.callback(found.close)
        _fill(writers, start, tokens, found, report)
    group.wait()
    return {str(hookpoint): Store.open(path) for hookpoint, path in plan.hookpoints.items()}


def settled_text(language_model: LanguageModel, text: TextConfig) -> TextConfig:
    """The same text, a data set on the hub at the commit it is at now, and with BOS as the tokenizer wants it."""
    return with_bos_known(language_model, replace(text, text=pinned(text.text)))


def with_bos_known(language_model: LanguageModel, text: TextConfig) -> TextConfig:
    """The same text, saying whether its pieces begin with BOS, as the tokenizer does by itself unless it was said."""
    return text if text.bos is not None else replace(text, bos=puts_bos(language_model.tokenizer))


def _begun(plan: HarvestPlan, dtype: str | None) -> dict[Hookpoint, torch.dtype]:
    """What stores hold activations in where that is known: as was asked for, or as a store was begun."""
    if dtype is not None:
        return dict.fromkeys(plan.hookpoints, DTYPES[dtype])
    return {each: read_manifest(path).dtype for each, path in plan.hookpoints.items() if STORE.is_at(path)}


def _dtype_for(rows: Float[Tensor, "tokens m"]) -> torch.dtype:
    """What a store that begins with these activations holds them in."""
    large = float(rows.abs().max()) * HEADROOM > torch.finfo(DTYPES[FINER]).max
    return torch.bfloat16 if large else DTYPES[FINER]


def origin_at(language_model: LanguageModel, hookpoint: Hookpoint, text: TextConfig) -> dict[str, Any]:
    """What a store says of where it comes from; a harvest with another origin cannot go on with it."""
    return {
        "model": language_model.name,
        "revision": language_model.revision,
        "precision": language_model.precision,
        "hookpoint": str(hookpoint),
        **asdict(with_bos_known(language_model, text)),
    }


def text_of(origin: Mapping[str, Any]) -> TextConfig:
    """The text that an origin tells of."""
    return TextConfig(**{field.name: origin[field.name] for field in fields(TextConfig) if field.name in origin})


def text_batches(language_model: LanguageModel, text: TextConfig) -> Iterator[Batch]:
    """The text as the model gets it, always the same; refuses what the model was not made for."""
    return batches_by_length(text_pieces(language_model, text), text.tokens_per_batch)


def text_pieces(language_model: LanguageModel, text: TextConfig) -> Pieces:
    """The text in pieces that the model can read; refuses what it was not made for."""
    if language_model.context is not None and text.context > language_model.context:
        raise ExpanderError(
            f"The context of {text.context} tokens is longer than the {language_model.context} that "
            f"{language_model.name} was made for."
        )
    together = 4.0 * text.tokens_per_batch * language_model.width
    instead = "give fewer --tokens-per-batch"
    check_memory(f"A batch of {text.tokens_per_batch:,} tokens", together, str(language_model.device), instead)
    found = documents(text.text, part=text.part, column=text.column)
    bos = bool(with_bos_known(language_model, text).bos)
    return tokenise(found, language_model.tokenizer, context=text.context, bos=bos)


class _Start(NamedTuple):
    """Where a harvest goes on."""

    tokens: int
    batches: int


def _common_start(writers: dict[Hookpoint, StoreWriter], device: torch.device, group: Group) -> _Start:
    """Where the store that has come least far goes on; the others go back there with it."""
    numbers = torch.zeros(2, dtype=torch.int64, device=device)
    if writers:
        point = min((writer.resume_point() for writer in writers.values()), key=lambda point: point.tokens)
        for writer in writers.values():
            writer.go_back_to(point)
        numbers[0], numbers[1] = point.tokens, 0 if point.cursor is None else int(point.cursor["batches"])
    group.share([numbers])
    return _Start(*numbers.tolist())


def _with_tokens(batches: Iterator[Batch], tokens: int) -> Iterator[Batch]:
    """As many of the batches as have so many tokens."""
    while tokens > 0 and (batch := next(batches, None)) is not None:
        yield batch
        tokens -= batch.tokens


def _on_cpu(found: Iterable[tuple[Batch, Activations]]) -> Iterator[tuple[Batch, Activations]]:
    """The activations where they are written from; to copy them is to wait for the model."""
    return ((batch, {hookpoint: rows.cpu() for hookpoint, rows in each.items()}) for batch, each in found)


def _fill(
    writers: dict[Hookpoint, StoreWriter],
    start: _Start,
    tokens: int,
    found: Iterable[tuple[Batch, Activations]],
    report: Report,
) -> None:
    stored = start.tokens
    if writers:
        report(stored)
    for number, (batch, activations) in enumerate(found, start=start.batches + 1):
        wanted = min(batch.tokens, tokens - stored)
        for hookpoint, rows in activations.items():
            _append(writers[hookpoint], hookpoint, batch, rows, wanted, {"batches": number})
        stored += wanted
        report(stored)
    for writer in writers.values():
        writer.finish()


def _append(
    writer: StoreWriter,
    hookpoint: Hookpoint,
    batch: Batch,
    activations: Float[Tensor, "tokens m"],
    wanted: int,
    cursor: dict[str, int],
) -> None:
    """The first `wanted` tokens of a batch."""
    mask = batch.mask
    try:
        writer.append(
            activations[:wanted],
            batch.ids[mask][:wanted],
            batch.document[:, None].expand(mask.shape)[mask][:wanted],
            batch.position[mask][:wanted],
            cursor=cursor,
        )
    except Float16Overflow as error:
        raise StoreError(f"At {hookpoint}: {error} Harvest into a new folder with --dtype bfloat16.") from error
    except StoreError as error:
        raise StoreError(f"At {hookpoint}: {error}") from error
