"""`expander attribute`: which features a prediction of the language model rests on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.table import Table

from expander_sae.checks import Count, a_text
from expander_sae.cli.inputs import autoencoder_in, hookpoint_of, language_model_of
from expander_sae.console import terminal, waiting
from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    from torch import Tensor

    from expander_sae.activations.models import LanguageModel
    from expander_sae.interventions import Attribution
    from expander_sae.interventions.attribution import Metric


@dataclass(frozen=True)
class Attribute:
    """Find the features that a prediction rests on, by gradient and by taking the largest away one by one.

    What is explained is how likely the model finds --token right behind the text, in logits, above --other or above the
    mean of all tokens; or with --loss how badly it predicts the text itself.
    """

    run_folder: tyro.conf.Positional[Path]
    """The folder of an autoencoder."""
    text: str
    """The text that the model reads."""
    token: str | None = None
    """The token whose prediction is explained, with its space: --token " Paris"."""
    other: str | None = None
    """A token to compare it with."""
    loss: bool = False
    """Explain the cross-entropy of the text instead."""
    top: Count = 20
    """Firings to take away and to list."""
    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub; that of the training by default."""
    hookpoint: str | None = None
    """Where in the model the dictionary belongs; where it was trained by default."""

    def run(self) -> None:
        """Print the firings with the largest effect."""
        from expander_sae.interventions import attribute
        from expander_sae.interventions.steering import prompt_ids

        if self.loss == (self.token is not None) or (self.other is not None and self.token is None):
            raise ExpanderError('Say what to explain: --token " Paris", with --other " Rome" if you like, or --loss.')
        sae = autoencoder_in(self.run_folder)
        hookpoint = hookpoint_of(sae, self.hookpoint)
        language_model = language_model_of({self.run_folder.name: sae}, self.model)
        ids = prompt_ids(language_model, self.text)[0]
        metric = self._metric(language_model, ids)
        with waiting("attributing"):
            found = attribute(
                language_model, {hookpoint: sae.to(language_model.device)}, ids, metric, ablate=self.top
            )  # fmt: skip
        self._tell(found, language_model, ids)

    def _metric(self, language_model: LanguageModel, ids: Tensor) -> Metric:
        """What is explained."""
        from expander_sae.interventions import logit_difference, text_loss

        if self.token is None:
            return text_loss(ids)
        other = None if self.other is None else token_of(language_model, self.other)
        return logit_difference(token_of(language_model, self.token), other)

    def _tell(self, found: Attribution, language_model: LanguageModel, ids: Tensor) -> None:
        """The table, and how far the two measures agree."""
        from expander_sae.activations.texts.spelling import Spelling

        console, spelled = terminal(), Spelling(language_model.tokenizer).of(ids.tolist())
        above = "the mean of all tokens" if self.other is None else repr(self.other)
        what = "cross-entropy of the text, nats a token" if self.loss else f"logit of {self.token!r} above {above}"
        console.print(f"{what}: {found.metric:.4g}", soft_wrap=True)
        table = Table("feature", "at the token")
        for heading in ("activation", "effect by gradient", "by ablation"):
            table.add_column(heading, justify="right")
        for each in found.tried:
            table.add_row(
                str(each.feature), f"{spelled[each.position]!r} ({each.position})", f"{each.activation:.3g}",
                f"{each.by_gradient:+.3g}", f"{each.by_ablation:+.3g}",
            )  # fmt: skip
        console.print(table)
        console.print(
            f"An effect is how much the number above falls without this firing; {len(found.tried)} of "
            f"{len(found.effects)} firings were taken away.", soft_wrap=True,
        )  # fmt: skip
        if found.agreement is not None:
            console.print(f"Rank correlation of the two effects: {found.agreement:.2f}.")


def token_of(language_model: LanguageModel, text: str) -> int:
    """The one token that this text is."""
    a_text("The token", text)
    tokenizer = language_model.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        pieces = ", ".join(repr(tokenizer.decode([each])) for each in ids) or "none"
        raise ExpanderError(f"{text!r} is not one token of {language_model.name} but {len(ids)}: {pieces}.")
    token: int = ids[0]
    return token
