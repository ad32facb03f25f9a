"""What a study of sparse coding says in words, and how to read its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from expander_sae.experiments.coding import LEARNING_GAP, WIDTH, CodingResult
from expander_sae.experiments.coding_config import MLP, NEITHER, RELU, TOPK, CodingConfig
from expander_sae.experiments.coding_rows import Row
from expander_sae.experiments.coding_world import USED
from expander_sae.reporting.charts import short

ENCODERS = (TOPK, RELU, MLP)
"""Coders that make codes in one go."""


def sentences(rows: Sequence[Row]) -> list[str]:
    """In every world and setting, the best encoder beside the best coder that solves for each token."""
    lines = []
    for truth, setting in dict.fromkeys((row.truth, row.setting) for row in rows):
        here = [row for row in rows if (row.truth, row.setting) == (truth, setting)]
        best = [max((row for row in here if (row.coder in ENCODERS) == one_go), key=lambda row: row.codes.value)
                for one_go in (True, False)]  # fmt: skip
        said = [f"{row.coder} {row.codes.value:.3f} for {short(row.inference)} multiply-adds a token" for row in best]
        gap = best[1].codes.value - best[0].codes.value
        lines.append(
            f"{truth.capitalize()} truth, {setting}: the best encoder by its codes is {said[0]}, the best solver "
            f"{said[1]}: a gap of {gap:.3f}."
        )
    return lines


def notes(result: CodingResult) -> list[str]:
    """How to read the table and the pictures, and what must not be concluded."""
    return [*_about_data(result.config), *_about_coders(result.config), *_about_costs()]


def _about_data(config: CodingConfig) -> list[str]:
    return [
        f"m = {config.m}, n = {config.n}, k = {config.k}, coefficients uniform between 0.5 and 1.5, noise "
        f"{config.noise:.0%} of the norm; unit columns with normal values, dense or with d = {config.d} entries. "
        f"{len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}, each with another world, learning and "
        f"{config.test_tokens:,} test tokens; intervals are Student's, 95 %, over seeds.",
        "Known codes: columns by least squares, encoders learn to give back the codes. Known dictionary: encoders "
        "learn to reconstruct over the true columns. Neither: columns are learned as well, dense ones if the truth is "
        "dense, expander ones that find their rows themselves if it is not.",
        "Features: mean cosine between true and learned columns under the best one-to-one matching. Codes: mean "
        "correlation over tokens under a matching of its own. Precision and recall are of the features used after "
        f"that matching, counted as used above {USED:g}. Error: squared norm left over, as a share of the "
        "activations'.",
    ]


def _about_coders(config: CodingConfig) -> list[str]:
    return [
        "topk, relu: linear encoders on the support of the dictionary, with a bias; relu under an l1 penalty, keeping "
        f"all that is positive. mlp: topk with {config.hidden} hidden units beside its linear encoder. topk under "
        f"'{NEITHER}' is the library's own autoencoder.",
        f"optimised: {config.steps} accelerated gradient steps on the lasso from zero; topk+optimised: "
        f"{config.refining_steps} from the codes of topk. lasso: coordinate descent to the end. All with a penalty of "
        f"{config.penalty:g} of the largest useful one, which shrinks codes and so costs error, and no limit on how "
        "many are used.",
        f"Dictionaries that learn with omp, optimised and lasso see {config.solver_tokens:,} tokens, the encoders "
        f"{config.tokens:,}; under l1 they learn from the {WIDTH} k largest codes, the lasso solved to a gap of "
        f"{LEARNING_GAP:g}.",
        "With an encoder in the loop, learned rows change only where a feature is dead, as in the library; with a "
        "solver they move. So on an expander truth with nothing known, part of an encoder's gap is that of its rows.",
    ]


def _about_costs() -> list[str]:
    return [
        "Costs are multiply-adds with values of a dictionary or network: m for a dense column, d for an expander one. "
        "Comparisons, the optimizer, restarts and moves of rows are not counted. All by formula, but the lasso's "
        "inference, which is counted while it runs, all tokens in lockstep; its learning is priced by it.",
        "Small planted worlds whose every token is exactly k-sparse up to noise: which coder wins on activations of a "
        "language model is another question.",
    ]
