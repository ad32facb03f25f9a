"""Evaluating autoencoders inside a language model: one clean pass over the text serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict, Unpack, overload

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder
from expander_sae.evaluation.autoencoders import Subjects, check_reference, check_width, subjects_of
from expander_sae.evaluation.bootstrap import Bootstrap
from expander_sae.evaluation.losses import Baselines, PatchedLoss, language_model_loss
from expander_sae.evaluation.reconstruction import ReconstructionMeter
from expander_sae.evaluation.results import Evaluation, Scope
from expander_sae.evaluation.setting import Setting
from expander_sae.evaluation.text import Part, Passage, TextActivations
from expander_sae.interventions.replaced import PatchedModel

Report = Callable[[int], None]
"""Called with the share of the work that is done, in tokens of those asked for."""

SHARED_PASSES = 4
"""Passes over the text that all autoencoders share: its activations, then clean, with zeros and with the mean."""


class Options(TypedDict, total=False):
    """What `evaluate` takes besides the autoencoders and the language model."""

    hookpoint: str | None
    text: TextConfig | None
    tokens: int
    reference: str | None
    coder: Coder | None
    report: Report


@overload
def evaluate(saes: SparseAutoencoder, language_model: LanguageModel, **options: Unpack[Options]) -> Evaluation: ...


@overload
def evaluate(
    saes: Mapping[str, SparseAutoencoder], language_model: LanguageModel, **options: Unpack[Options]
) -> dict[str, Evaluation]: ...


def evaluate(
    saes: SparseAutoencoder | Mapping[str, SparseAutoencoder],
    language_model: LanguageModel,
    *,
    hookpoint: str | None = None,
    text: TextConfig | None = None,
    tokens: int = 50_000,
    reference: str | None = None,
    coder: Coder | None = None,
    report: Report = lambda done: None,
) -> Evaluation | dict[str, Evaluation]:
    """How close reconstructions are and what the language model loses by them, for an autoencoder or several by name.

    Hookpoint and text are those of the training unless given, the text then its held-out part. `coder` takes the place
    of every autoencoder's own; `reference` names the one whose recovered loss the others retain a share of.
    """
    subjects = subjects_of(saes, coder)
    check_reference(subjects, reference)
    setting = Setting.of(subjects, language_model, hookpoint, text)
    passage = Passage.of(language_model, setting.text, tokens)
    work = _Work(report, tokens, passage.tokens * (SHARED_PASSES + len(subjects)))
    activations = TextActivations(language_model, setting.hookpoint, passage, setting.massive_above, work.add)
    check_width(subjects, activations.width, f"those of {setting.hookpoint}")
    study = _Study(subjects, PatchedModel(language_model, setting.hookpoint), activations)
    for part in activations.parts():
        study.add(part, work)
    scope = Scope(
        tokens=passage.tokens,
        documents=passage.documents,
        passed_through={"special": activations.special, "massive": activations.massive},
        setting=setting.described(language_model, activations.massive_above),
    )
    found = study.results(scope, reference)
    return found[next(iter(found))] if isinstance(saes, SparseAutoencoder) else found


class _Work:
    """How much is done, told in tokens of those asked for."""

    def __init__(self, report: Report, tokens: int, total: int) -> None:
        self._report, self._tokens, self._total, self._done = report, tokens, total, 0

    def add(self, tokens: int) -> None:
        """A pass was made over this many tokens."""
        self._done += tokens
        self._report(self._tokens * self._done // self._total)


class _Study:
    """The sums of several autoencoders on one text."""

    def __init__(self, subjects: Subjects, model: PatchedModel, activations: TextActivations) -> None:
        documents = activations.passage.documents
        self._model, self._bootstrap = model, Bootstrap(documents)
        self._baselines = Baselines(model, activations.mean, documents)
        self._meters = {name: ReconstructionMeter(sae, activations.mean, documents) for name, sae in subjects.items()}
        self._patched = {name: PatchedLoss.empty(documents) for name in subjects}

    def add(self, part: Part, work: _Work) -> None:
        """Measure a batch: the model as it is, ablated, and with every autoencoder."""
        clean = self._baselines.add(part)
        work.add((SHARED_PASSES - 1) * part.tokens)
        for name, meter in self._meters.items():
            reconstruction = meter.add(part.x, part.documents_at(part.replaced))
            self._patched[name].add(self._model, part, reconstruction, clean)
            work.add(part.tokens)

    def results(self, scope: Scope, reference: str | None) -> dict[str, Evaluation]:
        """What was found, by name."""
        compared = None if reference is None else self._patched[reference]
        return {
            name: meter.evaluation(
                name,
                scope,
                self._bootstrap,
                language_model_loss(self._bootstrap, self._baselines, self._patched[name], compared),
            )
            for name, meter in self._meters.items()
        }
