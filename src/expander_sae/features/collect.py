"""Making feature databases: one pass that encodes a text, then every feature described out of the codes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store import Store, Tokens, check_disk
from expander_sae.activations.texts.spelling import Spelling
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import Count, Few, FewOrNone, check_fields
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError, require
from expander_sae.evaluation.autoencoders import check_width
from expander_sae.features.columns import Lens, Neighbours, mixed, touched
from expander_sae.features.contexts import Choice, Contexts
from expander_sae.features.database import DatabaseInfo, FeatureDatabase, fingerprint
from expander_sae.features.pairs import pairs
from expander_sae.features.readability import Readability
from expander_sae.features.schema import CONTEXTS, CONTEXTS_FILE, DATABASE, FEATURES, FEATURES_FILE, GROUPS
from expander_sae.features.shards import (
    Block,
    EncodedTokens,
    Text,
    blocks,
    bytes_of_codes,
    firing_counts,
    open_shards,
    shard_name,
    write_shard,
)
from expander_sae.features.source import Source, StoredText
from expander_sae.features.statistics import statistics, statuses
from expander_sae.features.tables import bytes_of_tables, context_rows, feature_rows, table_file

Report = Callable[[str, int, int], None]
"""Called with what is done (`encoding`, or the name of an autoencoder whose features are described), how many tokens or
features of it, and out of how many."""


@dataclass(frozen=True)
class FeaturesConfig:
    """What is kept of every feature."""

    tokens: Count = 500_000
    """Tokens of the text to look at."""
    strongest: Few = 20
    """Strongest contexts of a feature, each of another document."""
    drawn: FewOrNone = 5
    """Contexts from each quarter of its activations, and as many from all of its firings."""
    around: FewOrNone = 16
    """Tokens on each side of a context."""
    related: Few = 10
    """Features listed that fire together with it, and as many that fire instead of it."""
    nearest: FewOrNone = 10
    """Features listed whose columns are nearest; 0 for none, which a million features are described faster with."""
    lens: FewOrNone = 10
    """Tokens listed that it makes likelier, and as many that it makes less likely; 0 for none."""
    readability: bool = True
    """Measure what the identity of the token explains of each feature, and how pure its strongest contexts are."""
    keep_codes: bool = True
    """Keep the codes of the text, too, which another description or another format can be made of without the model."""

    def __post_init__(self) -> None:
        check_fields(self)


def collect_features(
    sae: SparseAutoencoder,
    source: Store | Source,
    *,
    out: Path,
    name: str = "",
    language_model: LanguageModel | None = None,
    config: FeaturesConfig | None = None,
    report: Report = lambda what, done, total: None,
) -> FeatureDatabase:
    """The database of an autoencoder's features on the first tokens of a text; goes on where a killed pass stopped.

    The language model spells the tokens and says which ones features promote; without one both are left out.
    """
    name = name or Path(os.path.realpath(out)).parent.name
    found = collect_all({name: (sae, out)}, source, language_model=language_model, config=config, report=report)
    return found[name]


def collect_all(
    saes: Mapping[str, tuple[SparseAutoencoder, Path]],
    source: Store | Source,
    *,
    language_model: LanguageModel | None = None,
    config: FeaturesConfig | None = None,
    report: Report = lambda what, done, total: None,
) -> dict[str, FeatureDatabase]:
    """The same for several autoencoders by name, each with the folder of its database, on one pass over the text."""
    require("pyarrow", extra="features")
    config = config or FeaturesConfig()
    if language_model is not None and config.lens > len(language_model.tokenizer):
        there = len(language_model.tokenizer)
        raise ExpanderError(f"The model has {there} tokens, so lens must be at most that, not {config.lens}.")
    if isinstance(source, Store):
        source = StoredText(source, min(config.tokens, source.tokens))
    begun = {name: _Collection.begin(name, sae, out, source, config) for name, (sae, out) in saes.items()}
    _encode([each for each in begun.values() if not each.encoded], source, report)
    for each in begun.values():
        if not each.complete:
            each.describe(language_model, report)
    return {name: FeatureDatabase.open(each.folder) for name, each in begun.items()}


@dataclass
class _Collection:
    """A database that is being made; what is on disk is always said by its seal."""

    name: str
    sae: SparseAutoencoder
    folder: Path
    config: FeaturesConfig
    identity: dict[str, Any]
    """What must be the same for the codes on disk to be of use."""
    files: dict[str, dict[str, Any]]
    """Bytes and SHA-256 of every finished file."""
    encoded: bool
    complete: bool

    @classmethod
    def begin(cls, name: str, sae: SparseAutoencoder, folder: Path, source: Source, config: FeaturesConfig) -> Self:
        """A new database, or the one in the folder with what is done of it; refuses one of something else."""
        check_width({name: sae}, source.width, "the ones here")
        identity = {"autoencoder": fingerprint(sae), "origin": source.origin(), "tokens": config.tokens}
        new = cls(name, sae, folder, config, identity, {}, encoded=False, complete=False)
        if not DATABASE.is_at(folder):
            return new
        there = DATABASE.read(folder)
        differing = [key for key, value in identity.items() if there["identity"].get(key) != value]
        same = there["settings"] == asdict(config)
        if differing or (there["complete"] and not same and not there["settings"].get("keep_codes")):
            what = " and ".join(differing) or "settings, and its codes were not kept"
            raise ExpanderError(
                f"{folder} holds a feature database of other {what}; choose another folder with --out, or delete it."
            )
        for file, known in there["files"].items():
            DATABASE.check_named(folder / file, known["sha256"], known["bytes"])
        return replace(new, files=there["files"], encoded=there["encoded"], complete=there["complete"] and same)

    @property
    def shards(self) -> list[str]:
        """The finished files of codes, in order."""
        return sorted(name for name in self.files if name.startswith("codes-"))

    def encode(self, tokens: Tokens) -> EncodedTokens:
        """The codes of some tokens; massive ones, which an autoencoder is not asked about, use no feature."""
        x = tokens.activations.to(self.sae.pre_bias.device, torch.float32)
        with torch.no_grad():
            codes = self.sae.encode(x).to("cpu")
        values = codes.values * ~tokens.massive[:, None]
        return EncodedTokens(Codes(values, codes.indices, codes.n), tokens.token_ids, tokens.document,
                             tokens.position, tokens.massive)  # fmt: skip

    def bytes_needed(self, tokens: int, k: int) -> int:
        """About what the codes of so many more tokens, and the tables then, take on disk."""
        config, n = self.config, self.sae.n
        contexts = min(n * (config.strongest + config.drawn * (len(GROUPS) - 1)), config.tokens * k)
        return bytes_of_codes(tokens, k, n) + bytes_of_tables(n, contexts * (2 * config.around + 1))

    def add(self, tokens: EncodedTokens) -> None:
        """One more file of codes."""
        name = shard_name(len(self.shards))
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_shard(self.folder / name, tokens)
            self._know(name)
            self._seal({})

    def describe(self, language_model: LanguageModel | None, report: Report) -> None:
        """Every feature, out of the codes."""
        with self._writing():
            self._describe(language_model, report)

    def _describe(self, language_model: LanguageModel | None, report: Report) -> None:
        self.encoded, self.complete = True, False
        self._seal({})
        shards = open_shards([self.folder / name for name in self.shards])
        text, fired = Text.of(shards), firing_counts(shards)
        describer = _Describer(self.sae, self.config, text, fired, language_model)
        with (
            table_file(self.folder / FEATURES_FILE, FEATURES) as add_features,
            table_file(self.folder / CONTEXTS_FILE, CONTEXTS) as add_contexts,
        ):
            for block in blocks(shards, text, fired):
                contexts = describer.choice.contexts(block, text)
                add_features(feature_rows(describer.columns(block, contexts)))
                add_contexts(context_rows(contexts, block, text, describer.spelling))
                report(self.name, block.first + block.count, self.sae.n)
        for name in (FEATURES_FILE, CONTEXTS_FILE):
            self._know(name)
        if not self.config.keep_codes:
            self.files = {name: self.files[name] for name in (FEATURES_FILE, CONTEXTS_FILE)}
        self.complete = True
        status = statuses(fired)
        counts = {kind: int((status == kind).sum()) for kind in ("alive", "rare", "dead")}
        info = DatabaseInfo(
            name=self.name, autoencoder=self.identity["autoencoder"], m=self.sae.m, n=self.sae.n,
            k=max(shard.k for shard in shards), coder=repr(self.sae.coder), origin=self.identity["origin"],
            tokens=text.tokens, massive=int(text.massive.sum()), documents=len(np.unique(text.document)),
            settings=asdict(self.config), **counts,
        )  # fmt: skip
        self._seal(info.to_json())
        DATABASE.remove_unnamed(self.folder, self.files)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the disk refuses inside is told; every file is put in its place whole, so that none is broken."""
        try:
            yield
        except OSError as error:
            raise ExpanderError(
                f"{self.folder} cannot be written ({error.strerror or error}); what was complete there is whole, and "
                "the same command goes on after it once the disk allows it."
            ) from error

    def _know(self, name: str) -> None:
        path = self.folder / name
        self.files[name] = {"bytes": path.stat().st_size, "sha256": DATABASE.sha256_of(path)}

    def _seal(self, info: Mapping[str, Any]) -> None:
        about = {"identity": self.identity, "settings": asdict(self.config), "encoded": self.encoded}
        DATABASE.write(self.folder, {**about, **info, "complete": self.complete, "files": self.files}, {})


def _encode(collections: list[_Collection], source: Source, report: Report) -> None:
    """Read the text once and write the codes that each collection lacks."""
    if not collections:
        return
    least = min(collections, key=lambda each: len(each.shards))
    done = sum(shard.tokens for shard in open_shards([least.folder / name for name in least.shards]))
    begun, total = done, source.tokens
    report("encoding", done, total)
    for number, pieces in groupby(source.pieces(len(least.shards)), key=itemgetter(0)):
        waiting = [each for each in collections if len(each.shards) <= number]
        parts: list[list[EncodedTokens]] = [[] for _ in waiting]
        for _, piece in pieces:
            for each, found in zip(waiting, parts, strict=True):
                found.append(each.encode(piece))
            if done == begun:
                _check_room(waiting, [found[0].codes.values.shape[1] for found in parts], total - done)
            done += len(piece.token_ids)
            report("encoding", done, total)
        for each, found in zip(waiting, parts, strict=True):
            each.add(EncodedTokens.concatenated(found))
    if not least.shards:
        raise ExpanderError("There is no token to look at; give a longer text.")


def _check_room(collections: Sequence[_Collection], k: Sequence[int], tokens: int) -> None:
    """Refuse when a disk has no room for what so many more tokens take on it, before anything is written."""
    needed = dict[int, int]()
    for each, picks in zip(collections, k, strict=True):
        folder = each.folder.absolute()
        disk = next(place for place in (folder, *folder.parents) if place.exists()).stat().st_dev
        needed[disk] = needed.get(disk, 0) + each.bytes_needed(tokens, picks)
        check_disk(each.folder, needed[disk])


class _Describer:
    """What is known of all features while some of them are described."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        config: FeaturesConfig,
        text: Text,
        fired: NDArray[np.int64],
        language_model: LanguageModel | None,
    ) -> None:
        self.choice = Choice(config.strongest, config.drawn, config.around)
        self.spelling = None if language_model is None else Spelling(language_model.tokenizer)
        self._sae, self._config, self._text, self._fired = sae, config, text, fired
        self._tokens = max(1, int((~text.massive).sum()))
        self._readability = None
        if self.spelling is not None and config.readability:
            self._readability = Readability.of(text, self.spelling)
        self._neighbours = Neighbours(sae.dictionary) if config.nearest else None
        self._lens = None
        if language_model is not None and self.spelling is not None and config.lens:
            self._lens = Lens.of(language_model, sae.m, self.spelling)

    def columns(self, block: Block, contexts: Contexts) -> dict[str, Any]:
        """The columns of the table of features."""
        dictionary, span = self._sae.dictionary, (block.first, block.first + block.count)
        found = statistics(block, self._text, self._tokens)
        found |= pairs(block, self._fired, self._tokens, self._config.related)
        found |= touched(dictionary, *span) | mixed(self._sae.encoder, *span)
        if self._readability is not None:
            found |= self._readability.columns(block, contexts)
        if self._neighbours is not None:
            found |= self._neighbours.nearest(*span, self._config.nearest)
        if self._lens is not None:
            found |= self._lens.promoted(dictionary, float(self._sae.scale), *span, self._config.lens)
        return found
