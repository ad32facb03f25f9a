"""What a study of amortisation says: a table, a picture for each measure, and findings about whose the loss is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from expander_sae.evaluation.results import NOTHING, Interval
from expander_sae.reporting.charts import Axis, Picture
from expander_sae.reporting.dot_charts import Dot, DotGroup, dot_chart
from expander_sae.reporting.report import Report
from expander_sae.reporting.tables import Percent, Table
from expander_sae.studies.amortisation.config import CODERS, LASSO_GAP, MLP, AmortisationConfig
from expander_sae.studies.compare import Comparison, Record, optional_columns, over_seeds, was_asked
from expander_sae.studies.study import notes_of

DENSE = "dense"
"""The name of the dictionary that the others are compared with."""
FVU, RECOVERED = (
    Axis("share of the variance left unexplained (FVU)"),
    Axis("cross-entropy recovered, against the mean", percent=True),
)


def report_of(comparison: Comparison[AmortisationConfig]) -> Report:
    """The report; dictionaries over all seeds."""
    config = comparison.config
    rows = over_seeds(comparison.records, ("name", "trained_with", "coder"))
    pictures = {"fvu": picture_of(rows, FVU, lambda row: row["fvu"])}
    if was_asked(rows):
        pictures["recovered"] = picture_of(rows, RECOVERED, lambda row: row["recovered_mean"])
    network_tokens = f"{config.mlp_tokens or comparison.base.tokens:,}"
    words = {**comparison.words, "gap": LASSO_GAP, "network_tokens": network_tokens}
    return Report(
        name="amortisation",
        title="Amortisation: what is lost by reading codes off one product",
        findings=findings(rows),
        tables={"Every dictionary under every coder": table_of(rows)},
        notes=notes_of(__package__, *(["Planted"] * config.synthetic), **words),
        pictures=pictures,
        facts=comparison.facts,
        rows=[row.row("fvu", "never_fired", "recovered_mean", "retention") for row in rows],
    )


def table_of(rows: Sequence[Record]) -> Table:
    """A line for every dictionary under every coder."""
    return Table.of(rows, {
        "dictionary": lambda row: row.labels["name"],
        "trained with": lambda row: row.labels["trained_with"],
        "coder": lambda row: row.labels["coder"],
        "values of its network": lambda row: row.counts["network_values"] or "–",
        "FVU": lambda row: row["fvu"],
        "never fired": lambda row: Percent(row["never_fired"]),
        **optional_columns(rows),
    })  # fmt: skip


def picture_of(rows: Sequence[Record], axis: Axis, of: Callable[[Record], Interval]) -> Picture:
    """A measure of every dictionary, a panel for every coder."""
    found = {(row.labels["name"], row.labels["trained_with"], row.labels["coder"]): of(row) for row in rows}
    groups = []
    for name in dict.fromkeys(row.labels["name"] for row in rows):
        loops = dict.fromkeys(row.labels["trained_with"] for row in rows if row.labels["name"] == name)
        dots = [
            Dot(f"trained with {loop}", [found.get((name, loop, coder), NOTHING) for coder in CODERS])
            for loop in loops
        ]  # fmt: skip
        groups.append(DotGroup(str(name), dots))
    return dot_chart(groups, CODERS, axis)


def findings(rows: Sequence[Record]) -> list[str]:
    """For every dictionary what other coders gain, and for every small one whose the gap to the dense one is."""
    names = list(dict.fromkeys(str(row.labels["name"]) for row in rows))
    gaps = [_gap(rows, name) for name in names if name != DENSE]
    return [*(_gains(rows, name) for name in names), *gaps, _networks(rows, names)]


def _row(rows: Sequence[Record], name: str, loop: str, coder: str) -> Record:
    return next(row for row in rows if row.is_called(name=name, trained_with=loop, coder=coder))


def _gains(rows: Sequence[Record], name: str) -> str:
    def under(loop: str, coder: str) -> str:
        return f"{_row(rows, name, loop, coder)['fvu'].value:.3f} under {coder}"

    encoded = ", ".join(under("topk", coder) for coder in CODERS)
    learned = " and ".join(under("omp", coder) for coder in ("omp", MLP))
    return f"FVU of {name}, trained with topk: {encoded}; trained with omp: {learned}."


def _gap(rows: Sequence[Record], name: str) -> str:
    """How much worse than the dense one under one product, under others on the same columns, with omp in the loop."""

    def gap(loop: str, coder: str) -> float:
        return _row(rows, name, loop, coder)["fvu"].value - _row(rows, DENSE, loop, coder)["fvu"].value

    encoded, deeper, pursued, learned = gap("topk", "topk"), gap("topk", MLP), gap("topk", "omp"), gap("omp", "omp")
    ours, theirs = _row(rows, name, "topk", "topk")["fvu"], _row(rows, DENSE, "topk", "topk")["fvu"]
    said = (
        f"{name} minus dense, in FVU: {encoded:+.3f} under topk, {deeper:+.3f} under mlp and {pursued:+.3f} under "
        f"omp on the same columns, {learned:+.3f} with omp in the loop"
    )
    if not ours.low > theirs.high:
        return f"{said}: under topk there is no clear gap of which a part could be the encoder's."
    parts = [_share(1 - rest / encoded) for rest in (deeper, pursued, learned)]
    return (
        f"{said}: of the gap {parts[0]} is the linear encoder's by the mlp and {parts[1]} by omp on the same columns, "
        f"{parts[2]} with omp in the loop."
    )


def _networks(rows: Sequence[Record], names: Sequence[str]) -> str:
    """What the MLP encoders hold, beside what they encode for."""
    found = {name: _row(rows, name, "topk", MLP).counts for name in names}
    said = ", ".join(
        f"{counts['network_values']:,} for {name} with its {counts['learned_values']:,}"
        for name, counts in found.items()
    )
    return f"The MLP encoders have learned values of their own: {said}."


def _share(part: float) -> str:
    """In words where it is no share: a gap that grows, or that turns around."""
    if part < 0:
        return "nothing (it grows)"
    return "all" if part >= 1 else f"{part:.0%}"
