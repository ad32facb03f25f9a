"""What comparisons of trained dictionaries are made on: activations to train on, and others to measure on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.harvest import TextConfig, text_of
from expander_sae.activations.models import LanguageModel, load_language_model, name_of
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import Count, Seed, Several, StudyFolder, check_fields, distinct
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import Evaluation, evaluate, evaluate_activations
from expander_sae.training import TrainConfig

_ROWS_OF_METRICS = 60
_CHECKPOINTS = 20


@dataclass(frozen=True)
class ActivationsConfig:
    """Activations, and what is measured on them."""

    store: Path | None = None
    """The folder that `expander harvest` filled."""
    held_out: Path | None = None
    """A store of other text, on which reconstruction is measured; without one, the language model that the store names
    is loaded and its loss is measured as well, on the held-out part of the store's text."""
    synthetic: bool = False
    """Take sums of planted sparse columns in place of a store: a minute's rehearsal."""
    batch: Count = 1024
    """Tokens per training step."""
    seeds: tuple[Seed, ...] = (0,)
    """Everything is trained once with each."""
    evaluation_tokens: Several = 20_000
    """Held-out tokens to measure on, at most."""
    out: StudyFolder = Path("runs/comparison")
    """The folder for everything that is made; a second run goes on there."""

    lists: ClassVar[dict[str, int]] = {"seeds": 0}
    """Fields that hold different numbers, and the least of them; None is none yet."""

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.store is None) != self.synthetic:
            raise ExpanderError("Give either the folder of a store with --store or --synthetic, one of the two.")
        if self.synthetic and self.held_out is not None:
            raise ExpanderError("Synthetic data hold their own tokens out; leave --held-out off.")
        for name, least in self.lists.items():
            if getattr(self, name) is not None:
                distinct(name, getattr(self, name), least)

    def dense(self, n: int, k: int, tokens: int) -> TrainConfig:
        """A dense dictionary that is trained on so many tokens."""
        return TrainConfig(
            n=n,
            k=k,
            objective="fidelity",  # what the measured recipes of all studies are about
            tokens=tokens,
            batch=self.batch,
            checkpoint_every=max(self.batch, tokens // _CHECKPOINTS),
            log_every=max(1, tokens // self.batch // _ROWS_OF_METRICS),
        )


@dataclass(frozen=True)
class ComparisonConfig(ActivationsConfig):
    """How dictionaries of one size are trained on the activations."""

    n: Count | None = None
    """Features; by default 8 for every coordinate of an activation."""
    k: Count = 16
    """Active features per token."""
    tokens: Count | None = None
    """Tokens to train on; by default as many as there are, more means several passes."""
    inside: bool = False
    """With --held-out: measure the language model's loss as well, on the text that this store is of."""

    per_coordinate: ClassVar[int] = 8
    """Features for every coordinate where n is not given."""
    planted_passes: ClassVar[int] = 1
    """Times that planted data are read where no number of tokens is given; they are few."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inside and self.held_out is None:
            raise ExpanderError("Without --held-out the loss is measured inside the model anyway; leave --inside off.")

    def base(self, data: Data) -> TrainConfig:
        """The dense dictionary on these activations; the others differ from it."""
        tokens = data.tokens * (self.planted_passes if self.synthetic else 1)
        return self.dense(self.n or self.per_coordinate * data.width, self.k, self.tokens or tokens)


def check_degrees(degrees: Sequence[int], m: int) -> None:
    """Refuse degrees of expander dictionaries that would be dense on activations of width m."""
    if max(degrees) >= m:
        raise ExpanderError(f"degrees must be below the width of the activations, {m}; the dense one has that.")


class Data(Protocol):
    """Activations, and the measure of what is learned from them."""

    @property
    def source(self) -> Store | Tensor:
        """What to train on."""

    @property
    def width(self) -> int:
        """The size of an activation."""

    @property
    def tokens(self) -> int:
        """How many activations one pass trains on."""

    @property
    def origin(self) -> dict[str, Any]:
        """Where they come from."""

    def measure(
        self, saes: Mapping[str, SparseAutoencoder], reference: str, progress: Callable[[int], None]
    ) -> Mapping[str, Evaluation]:
        """Every autoencoder on held-out tokens; `reference` is the one that the others retain a share of."""


class StoreData:
    """A store, measured inside its language model or on a second store, or inside on the text of the second."""

    def __init__(
        self,
        path: str,
        held_out: str | None,
        tokens: int,
        language_model: LanguageModel | None = None,
        *,
        inside: bool = False,
    ) -> None:
        self.source, self._evaluation_tokens = Store.open(path), tokens
        self.width, self.tokens, self.origin = self.source.width, self.source.norms.count, dict(self.source.origin)
        self._held_out = None if held_out is None else Store.open(held_out)
        self._language_model, self._inside = language_model, inside or held_out is None
        if self._held_out is not None and self._held_out.width != self.width:
            raise ExpanderError(f"{held_out} has activations of width {self._held_out.width}, not {self.width}.")
        if self._inside:
            self.check_origins()

    def check_origins(self) -> None:
        """Refuse stores that do not say which model and text they come from."""
        for store in filter(None, (self.source, self._held_out)):
            if not {"model", "revision", "hookpoint", "text"} <= store.origin.keys():
                raise ExpanderError(
                    f"{store.path} does not say which model and text it comes from; give a store that `expander "
                    "harvest` filled."
                )

    @property
    def language_model(self) -> LanguageModel:
        """The model that the store names, loaded when it is first asked for."""
        if self._language_model is None:
            self._language_model = load_language_model(name_of(self.origin))
        return self._language_model

    @property
    def held_out_text(self) -> TextConfig:
        """The text that is measured on: that of the second store, or the held-out part of the first one's."""
        if self._held_out is not None:
            return text_of(self._held_out.origin)
        return replace(text_of(self.origin), part="held-out")

    def measure(
        self, saes: Mapping[str, SparseAutoencoder], reference: str, progress: Callable[[int], None]
    ) -> Mapping[str, Evaluation]:
        if self._held_out is not None and not self._inside:
            return evaluate_activations(saes, self._held_out, tokens=self._evaluation_tokens)
        return evaluate(
            saes, self.language_model, text=self.held_out_text, tokens=self._evaluation_tokens, reference=reference,
            report=progress,
        )  # fmt: skip


WIDTH, FEATURES, ACTIVE = 96, 384, 8
"""Of planted activations: coordinates, columns, and columns in each of them."""
TRAINED, HELD_OUT, PER_DOCUMENT = 12_288, 768, 32
"""Planted tokens to train on, to measure on, and in what counts as a document."""


class PlantedData:
    """Sums of a few columns whose entries fall off by a power law: the more of them a dictionary learns, the better."""

    def __init__(self, tokens: int, held_out: int, trained: int = TRAINED) -> None:
        x = planted_activations(trained + held_out)
        self.source, self._held_out = x[:trained], x[trained:]
        self.width, self.tokens, self.origin = WIDTH, trained, dict[str, Any](planted=f"{FEATURES} columns")
        self._documents, self._evaluation_tokens = torch.arange(held_out) // PER_DOCUMENT, tokens

    def measure(
        self, saes: Mapping[str, SparseAutoencoder], reference: str, progress: Callable[[int], None]
    ) -> Mapping[str, Evaluation]:
        return evaluate_activations(saes, self._held_out, documents=self._documents, tokens=self._evaluation_tokens)


def planted_activations(tokens: int) -> Float[Tensor, "tokens m"]:
    """Each a sum of ACTIVE columns, the first of which are the most frequent, with noise of a tenth of its norm."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(FEATURES, WIDTH, generator=generator).argsort(dim=1)
    sizes = torch.randn(FEATURES, WIDTH, generator=generator).sign() / (1 + torch.arange(WIDTH))
    columns = torch.nn.functional.normalize(torch.zeros(FEATURES, WIDTH).scatter(1, order, sizes), dim=1)
    frequency = (1 + torch.arange(FEATURES)).double().pow(-0.5).expand(tokens, -1)
    features = torch.multinomial(frequency, ACTIVE, generator=generator)
    weights = torch.rand(tokens, ACTIVE, 1, generator=generator) + 0.5
    x = (weights * columns[features]).sum(dim=1)
    noise = torch.randn(x.shape, generator=generator) * torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x + 0.1 * noise / WIDTH**0.5


def open_data(config: ComparisonConfig, planted: int = HELD_OUT) -> Data:
    """What the config asks for; planted data hold out so many tokens."""
    if config.store is None:
        return PlantedData(config.evaluation_tokens, planted)
    held_out = None if config.held_out is None else str(config.held_out)
    return StoreData(str(config.store), held_out, config.evaluation_tokens, inside=config.inside)
