"""What a study of amortisation says in words: never better than the numbers are."""

from __future__ import annotations

from collections.abc import Sequence

from expander_sae.experiments.amortisation import AmortisationResult
from expander_sae.experiments.amortisation_config import CODERS, LASSO_GAP, MLP

from expander_sae.experiments.amortisation_rows import Row

DENSE = "dense"


def sentences(rows: Sequence[Row]) -> list[str]:
    """For every dictionary what other coders gain, and for every small one whose the gap to the dense one is."""
    names = list(dict.fromkeys(row.name for row in rows))
    gaps = [_gap(rows, name) for name in names if name != DENSE]
    return [*(_gains(rows, name) for name in names), *gaps, _networks(rows, names)]


def _fvu(rows: Sequence[Row], name: str, loop: str, coder: str) -> Row:
    return next(row for row in rows if (row.name, row.trained_with, row.coder) == (name, loop, coder))


def _gains(rows: Sequence[Row], name: str) -> str:
    under = ", ".join(f"{_fvu(rows, name, 'topk', coder).fvu.value:.3f} under {coder}" for coder in CODERS)
    learned = " and ".join(f"{_fvu(rows, name, 'omp', coder).fvu.value:.3f} under {coder}" for coder in ("omp", MLP))
    return f"FVU of {name}, trained with topk: {under}; trained with omp: {learned}."


def _gap(rows: Sequence[Row], name: str) -> str:
    """How much worse than the dense one under one product, under others on the same columns, with omp in the loop."""

    def gap(loop: str, coder: str) -> float:
        return _fvu(rows, name, loop, coder).fvu.value - _fvu(rows, DENSE, loop, coder).fvu.value

    encoded, deeper, pursued, learned = gap("topk", "topk"), gap("topk", MLP), gap("topk", "omp"), gap("omp", "omp")
    ours, theirs = _fvu(rows, name, "topk", "topk").fvu, _fvu(rows, DENSE, "topk", "topk").fvu
    said = f"{name} minus dense, in FVU: {encoded:+.3f} under topk, {deeper:+.3f} under mlp and {pursued:+.3f} under "
    said += f"omp on the same columns, {learned:+.3f} with omp in the loop"
    if not ours.low > theirs.high:
        return f"{said}: under topk there is no clear gap of which a part could be the encoder's."
    parts = [_share(1 - rest / encoded) for rest in (deeper, pursued, learned)]
    return (
        f"{said}: of the gap {parts[0]} is the linear encoder's by the mlp and {parts[1]} by omp on the same columns, "
        f"{parts[2]} with omp in the loop."
    )


def _networks(rows: Sequence[Row], names: Sequence[str]) -> str:
    """What the MLP encoders hold, beside what they encode for."""
    found = [_fvu(rows, name, "topk", MLP) for name in names]
    said = ", ".join(f"{row.network_values:,} for {row.name} with its {row.learned_values:,}" for row in found)
    return f"The MLP encoders have learned values of their own: {said}."


def _share(part: float) -> str:
    """In words where it is no share: a gap that grows, or that turns around."""
    if part < 0:
        return "nothing (it grows)"
    return "all" if part >= 1 else f"{part:.0%}"


def notes(result: AmortisationResult) -> list[str]:
    """How to read the table, and what must not be concluded."""
    config, evaluation = result.config, result.cells[0].evaluation
    rehearsal = "Planted activations, and few of them: the numbers say nothing about any model."
    return [
        *([rehearsal] if config.synthetic else []),
        f"{result.base.n:,} features, k={config.k} under every coder, {result.base.tokens:,} tokens to train on, "
        f"{len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}; measured on {evaluation.tokens:,} held-out tokens "
        f"of {evaluation.documents:,} documents. Intervals reach over the 95 % intervals over documents of all seeds.",
        "topk: one product and a bias, as the dictionary was trained. mp: k steps of matching pursuit. omp: k steps of "
        f"orthogonal matching pursuit. lasso: an l1 penalty of {config.penalty:g} of the largest useful one, solved "
        f"to a gap of {LASSO_GAP:g}, the k largest codes kept and fitted by least squares.",
        f"mlp: a network with {config.hidden} hidden units beside one product and a bias, its k largest codes kept, "
        f"trained on {config.mlp_tokens or result.base.tokens:,} tokens to reconstruct over the finished dictionary; "
        "where these are several passes over few, it may fit those rather than others.",
        "Dictionaries trained with omp have no encoder, so they are not measured under topk. With omp in the loop "
        "learned rows move and columns differ in length, with topk they do not: with --construction learned a part "
        "of what the loop gains is the rows'.",
        "dense n=: as many values as an expander dictionary, in fewer columns, but never fewer than k. Retention: CE "
        "recovered against the mean, as a share of what dense recovers, trained and measured with topk.",
    ]
