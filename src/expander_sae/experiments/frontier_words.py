"""Who wins where: what the numbers of a frontier say, never better than they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from expander_sae.experiments.frontier import FrontierResult
from expander_sae.experiments.frontier_contestants import EXPANDER, REFERENCE
from rich.filesize import decimal

from expander_sae.experiments.frontier_rows import FVU, RECOVERED, Measure, Row, measures_of
from expander_sae.reporting.tables import Cell, Table, estimate_cell

ROUNDING = 1.05
"""How much larger than the expander dictionary a rival may be: sizes come in whole columns and whole ranks."""
BUDGETS = {"learned values": "learned_values", "bytes": "bytes_on_disk"}
"""What is held equal."""
EXPANDER_WINS, RIVAL_WINS, UNCLEAR, ALONE = "expander", "rival", "unclear", "no rival as small"
"""What a comparison can come to."""


@dataclass(frozen=True)
class Verdict:
    """An expander dictionary beside the best rival of at most its size."""

    expander: Row
    budget: str
    measure: Measure
    rival: Row | None

    @property
    def outcome(self) -> str:
        """Who wins; unclear where the intervals meet."""
        if self.rival is None:
            return ALONE
        ours, theirs = self.measure.of(self.expander), self.measure.of(self.rival)
        if self.measure.clearly_better(ours, theirs):
            return EXPANDER_WINS
        return RIVAL_WINS if self.measure.clearly_better(theirs, ours) else UNCLEAR


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One for every expander dictionary, budget and measure."""
    measures = [measure for measure in measures_of(rows) if measure in (FVU, RECOVERED)]
    return [
        Verdict(row, budget, measure, _best_rival(row, rows, BUDGETS[budget], measure))
        for budget in BUDGETS
        for row in rows
        if row.family == EXPANDER
        for measure in measures
    ]


def _best_rival(expander: Row, rows: Sequence[Row], size: str, measure: Measure) -> Row | None:
    limit = ROUNDING * getattr(expander, size)
    small = [row for row in rows if row.family != EXPANDER and getattr(row, size) <= limit]
    known = [row for row in small if not math.isnan(measure.of(row).value)]
    return min(known, key=lambda row: measure.of(row).value * (1 if measure.lower_is_better else -1), default=None)


def verdict_table(rows: Sequence[Row]) -> Table:
    """Every comparison, a line each."""
    headings = ["expander", "at equal", "", "measure", "its number", "best rival", "its number", "who wins"]
    return Table([Cell(heading) for heading in headings], [_cells(verdict) for verdict in verdicts(rows)])


def _cells(verdict: Verdict) -> list[Cell]:
    row, rival, measure = verdict.expander, verdict.rival, verdict.measure
    size = decimal(row.bytes_on_disk) if verdict.budget == "bytes" else f"{row.learned_values:,}"
    return [
        Cell(row.name),
        Cell(verdict.budget),
        Cell(size),
        Cell("FVU" if measure is FVU else "CE recovered"),
        estimate_cell(measure.of(row), percent=measure.percent),
        Cell("–" if rival is None else f"{rival.name}, {rival.coder}"),
        estimate_cell(None if rival is None else measure.of(rival), percent=measure.percent),
        Cell(verdict.outcome),
    ]


def sentences(rows: Sequence[Row]) -> list[str]:
    """Who wins at which budget, in one sentence for each measure."""
    found = verdicts(rows)
    lines = []
    for measure in dict.fromkeys(verdict.measure for verdict in found):
        for budget in BUDGETS:
            of_both = [each for each in found if (each.measure, each.budget) == (measure, budget)]
            lines.append(f"At equal {budget}, by {measure.label}: {_outcomes(of_both)}.")
    return lines


def _outcomes(found: Sequence[Verdict]) -> str:
    """Where who wins, by the names of the expander dictionaries."""

    def where(outcome: str) -> str:
        return ", ".join(each.expander.name.removeprefix("expander ") for each in found if each.outcome == outcome)

    parts = {
        EXPANDER_WINS: "the expander dictionary wins at {}",
        UNCLEAR: "no clear winner at {}",
        RIVAL_WINS: "another wins at {}",
        ALONE: "nothing else is as small at {}",
    }
    said = [words.format(where(outcome)) for outcome, words in parts.items() if where(outcome)]
    rivals = dict.fromkeys(each.rival.family for each in found if each.outcome == RIVAL_WINS and each.rival)
    return "; ".join(said) + (f" ({', '.join(rivals)})" if rivals else "")


def notes(result: FrontierResult) -> list[str]:
    """How to read the table, and what must not be concluded."""
    config, evaluation = result.config, result.cells[0].evaluation
    rehearsal = "Planted activations, and few of them: a rehearsal, of which the numbers say nothing about any model."
    return [
        *([rehearsal] if config.synthetic else []),
        f"{result.dense.n:,} features, k={config.k}, {result.dense.tokens:,} tokens to train on, "
        f"{len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}; measured on {evaluation.tokens:,} held-out tokens "
        f"of {evaluation.documents:,} documents.",
        "Learned values: all learned numbers, biases included; of product-quantised columns the centroids, the norms "
        "and the indices. Bytes: the folder, values in 8 bits unless the name says otherwise, rows packed; low-rank, "
        "2-bit and product-quantised dictionaries have no file form of ours, so their bytes are counted. All are "
        "measured with the values as so few bits give them.",
        "Columns that are fewer, and pruned ones, were trained with the coder that they are measured under. The dense "
        "dictionary was trained with TopK, and so was what is made of it by rounding and factorising; under omp it "
        "might gain from training with pursuit, which a dense dictionary makes slow.",
        f"Pruned and low-rank dictionaries were trained once more on {config.fine_tune:.0%} of the tokens, which the "
        "others did not see again; rounded and product-quantised ones were not.",
        f"Retention: CE recovered against the mean, as a share of what {REFERENCE} recovers under topk.",
        f"A rival is as small if it takes at most {ROUNDING - 1:.0%} more. Who wins is unclear where 95 % intervals "
        "over documents, over all seeds, meet.",
    ]  # fmt: skip
