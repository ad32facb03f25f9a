"""What autoencoders are evaluated on: what they were trained on, as far as they know, unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from expander_sae.activations.harvest import TextConfig, settled_text
from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.texts.files import Part
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.autoencoders import Subjects
from expander_sae.interventions.attached import massive_above
from expander_sae.interventions.hooks import hookpoint_named


@dataclass(frozen=True)
class Setting:
    """A hookpoint, a text, and from which norm on a token is massive."""

    hookpoint: Hookpoint
    text: TextConfig
    massive_above: float | None
    """As in training; None where that is not known."""
    held_out: bool | None
    """Whether training used another part of this text; None where it used another text, or did not say which."""

    @classmethod
    def of(
        cls, subjects: Subjects, language_model: LanguageModel, hookpoint: str | None, text: TextConfig | None
    ) -> Setting:
        """What is given, completed by what the autoencoders know, which must be the same for all."""
        _check_revision(subjects, language_model)
        trained_at = trained_with(subjects, "hookpoint") if hookpoint is None else hookpoint
        if trained_at is None:
            raise ExpanderError("The autoencoder does not say where its activations come from; give the hookpoint.")
        text = settled_text(language_model, text_for(subjects) if text is None else text)
        found = hookpoint_named(language_model.model, trained_at)
        return cls(found, text, _massive_above(subjects, found), _held_out(subjects, text))

    def described(self, language_model: LanguageModel, massive_above: float) -> dict[str, Any]:
        """The setting as an `Evaluation` tells it, with the norm that was used in the end."""
        text = asdict(self.text)
        del text["tokens_per_batch"]  # batches are cut in another way here
        return {
            "model": language_model.name,
            "revision": language_model.revision,
            "hookpoint": str(self.hookpoint),
            **text,
            "held_out": self.held_out,
            "massive_above": massive_above,
            "massive_from": "the evaluated text" if self.massive_above is None else "training",
        }


def trained_with(subjects: Subjects, key: str) -> Any:
    """What the training activations of all autoencoders have under a key (model, hookpoint, ...); None if none says."""
    values = {_origin(sae).get(key) for sae in subjects.values()} - {None}
    if len(values) > 1:
        raise ExpanderError(
            f"The autoencoders were trained with {key} {' and '.join(sorted(map(str, values)))}; evaluate those that "
            "belong together, or say which to use."
        )
    return values.pop() if values else None


def text_for(
    subjects: Subjects,
    *,
    text: str | None = None,
    part: Part = "held-out",
    column: str | None = None,
    context: int | None = None,
    bos: bool | None = None,
) -> TextConfig:
    """A part of the text that the autoencoders were trained on, cut as it was then; what is given is taken instead."""
    given = {"text": text, "column": column, "context": context, "bos": bos}
    known = {name: trained_with(subjects, name) if value is None else value for name, value in given.items()}
    if known["text"] is None:
        raise ExpanderError("The autoencoder does not say what text it was trained on; give a text.")
    changes: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    return replace(TextConfig(part=part), **changes)


def _origin(sae: SparseAutoencoder) -> Mapping[str, Any]:
    """What an autoencoder says of the activations that it was trained on."""
    origin: Mapping[str, Any] = sae.provenance.get("activations", {})
    return origin


def _massive_above(subjects: Subjects, hookpoint: Hookpoint) -> float | None:
    """The norm above which a token was massive in training, if it was the same for all, at this hookpoint."""
    known = {massive_above(sae, hookpoint) for sae in subjects.values()}
    return known.pop() if len(known) == 1 else None


def _held_out(subjects: Subjects, text: TextConfig) -> bool | None:
    parts = {_origin(sae).get("part") for sae in subjects.values() if _origin(sae).get("text") == text.text}
    return all({part, text.part} == {"train", "held-out"} for part in parts) if parts else None


def _check_revision(subjects: Subjects, language_model: LanguageModel) -> None:
    """Refuse another version of the model than the one that an autoencoder was trained with."""
    for name, sae in subjects.items():
        model, revision = _origin(sae).get("model"), _origin(sae).get("revision")
        if model == language_model.name and revision is not None and revision != language_model.revision:
            raise ExpanderError(
                f"{name} was trained on revision {revision} of {model}, but the one here is "
                f"{language_model.revision}; load the model at that revision."
            )
