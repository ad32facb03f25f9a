"""Coders by short names: `omp:32` on a command line, in a config, in a table."""

from __future__ import annotations

from expander_sae.coders.base import Coder
from expander_sae.coders.basis_pursuit import BasisPursuit
from expander_sae.coders.candidates import Candidates
from expander_sae.coders.coordinate_descent import CoordinateDescent
from expander_sae.coders.fista import FISTA
from expander_sae.coders.jumprelu import JumpReLU
from expander_sae.coders.lasso import LassoCoder
from expander_sae.coders.pursuit import OMP, MatchingPursuit
from expander_sae.coders.ssmp import SSMP
from expander_sae.coders.thresholding import HTP, NIHT
from expander_sae.coders.topk import BatchTopK, TopK
from expander_sae.coders.voting import VotingDecoder
from expander_sae.errors import ExpanderError

CODERS: dict[str, type[Coder]] = {
    "topk": TopK,
    "batch_topk": BatchTopK,
    "candidates": Candidates,
    "mp": MatchingPursuit,
    "omp": OMP,
    "niht": NIHT,
    "htp": HTP,
    "ssmp": SSMP,
    "voting": VotingDecoder,
    "fista": FISTA,
    "cd": CoordinateDescent,
    "basis_pursuit": BasisPursuit,
    "jumprelu": JumpReLU,
}
"""Every coder of the package by its short name."""

_WITHOUT_NUMBER = (BasisPursuit, JumpReLU)


def coder_named(name: str, signed: bool = False) -> Coder:
    """The coder that a name such as `omp:32` or `fista:0.1` stands for, its other parameters as they are by default.

    Behind the colon is k, the features per token, or the penalty of a lasso; basis_pursuit and jumprelu have neither.
    """
    short, colon, number = name.partition(":")
    kind = CODERS.get(short)
    if kind is None or bool(colon) == (kind in _WITHOUT_NUMBER):
        raise ExpanderError(f"There is no coder {name!r}; the coders are {', '.join(map(_usage, CODERS))}.")
    try:
        numbers = {} if kind in _WITHOUT_NUMBER else {_number_of(kind): (_type_of(kind)(number))}
    except ValueError as error:
        what = "a number" if issubclass(kind, LassoCoder) else "a whole number"
        raise ExpanderError(f"{name!r} needs {what} behind the colon, as in {_usage(short)}.") from error
    return kind(**numbers, signed=signed)  # type: ignore[call-arg]  # each of them takes these


def name_of(coder: Coder) -> str:
    """The name of a coder with its k or penalty, as `coder_named` reads it; that of its class if it is none of these.

    What else the coder was told (signed, a tolerance) is not in the name.
    """
    for short, kind in CODERS.items():
        if type(coder) is kind:
            return short if kind in _WITHOUT_NUMBER else f"{short}:{getattr(coder, _number_of(kind))}"
    return type(coder).__name__


def _number_of(kind: type[Coder]) -> str:
    return "penalty" if issubclass(kind, LassoCoder) else "k"


def _type_of(kind: type[Coder]) -> type[int] | type[float]:
    return float if issubclass(kind, LassoCoder) else int


def _usage(short: str) -> str:
    """The name with a number that makes sense."""
    kind = CODERS[short]
    if kind in _WITHOUT_NUMBER:
        return short
    return f"{short}:{0.1 if issubclass(kind, LassoCoder) else 32}"
