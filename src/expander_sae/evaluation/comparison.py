"""What a dictionary lost by being made smaller: it and what became of it, measured side by side on one text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation.language_model import evaluate
from expander_sae.evaluation.quality.measure import QualityConfig
from expander_sae.evaluation.quality.results import MEASURES, Quality
from expander_sae.evaluation.quality.session import Plan, Session
from expander_sae.evaluation.results import Evaluation
from expander_sae.evaluation.setting import Setting

BEFORE, AFTER = "before", "after"
READ = ("token_r2", "purity", "coherence_strongest", "firings_found_again")
"""What is measured of how features read, and whether they are still the same ones."""


class Compared(NamedTuple):
    """A number of both; nan where it is not defined."""

    measure: str
    before: float
    after: float


def compared(
    before: SparseAutoencoder,
    after: SparseAutoencoder,
    language_model: LanguageModel,
    text: TextConfig,
    *,
    tokens: int,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Compared]:
    """Fidelity and readability of both on the first tokens of a text, at the hookpoint that they were trained at."""
    saes = {BEFORE: before, AFTER: after}
    found = evaluate(
        saes, language_model, text=text, tokens=tokens,
        report=lambda done: report("evaluating", done, tokens),
    )  # fmt: skip
    rows = [
        Compared(name, first, second)
        for (name, first), second in zip(
            _fidelity(found[BEFORE]).items(), _fidelity(found[AFTER]).values(), strict=True
        )
    ]
    plan = Plan(tokens, baselines=False, config=QualityConfig(ranks=False, effects=0, shown=0))
    setting = Setting.of(saes, language_model, None, text)
    session = Session(saes, language_model, setting, plan, again={AFTER: before}, report=report)
    qualities = {quality.name: quality for quality in session.qualities()}
    return [*rows, *(_read(measure, qualities) for measure in READ)]


def _fidelity(found: Evaluation) -> dict[str, float]:
    loss = found.language_model
    numbers = {"FVU": found.fvu.value}
    if loss is not None:
        numbers |= {"CE recovered (zero)": loss.recovered_zero.value, "KL": loss.kl.value}
    return numbers | {"never fired": found.never_fired, "L0": found.l0.value}


def _read(measure: str, qualities: dict[str, Quality]) -> Compared:
    both = [
        qualities[name].measures[measure].value if measure in qualities[name].measures else math.nan
        for name in (BEFORE, AFTER)
    ]
    return Compared(MEASURES[measure], *both)
