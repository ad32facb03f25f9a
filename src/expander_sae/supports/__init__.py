"""Supports: which d of the m coordinates each of the n features touches, made from a recipe or stored."""

from expander_sae.supports.bad_sets import BadSets, adversarial_expansion, peel
from expander_sae.supports.construction import NO_ROW, Construction, Parameter, SupportError
from expander_sae.supports.registry import constructions, named
from expander_sae.supports.statistics import (
    distinct_supports,
    max_overlap,
    overlap_histogram,
    right_degrees,
    uncovered_rows,
)
from expander_sae.supports.support import RowLists, Support

__all__ = [
    "NO_ROW",
    "BadSets",
    "Construction",
    "Parameter",
    "RowLists",
    "Support",
    "SupportError",
    "adversarial_expansion",
    "constructions",
    "distinct_supports",
    "max_overlap",
    "named",
    "overlap_histogram",
    "peel",
    "right_degrees",
    "uncovered_rows",
]
