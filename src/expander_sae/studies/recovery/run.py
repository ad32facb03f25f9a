"""Recovery: how many of how many features can be active before a coder no longer finds exactly them."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from expander_sae.certificates.coherence import coherence_of
from expander_sae.certificates.streaming import silent
from expander_sae.certificates.subject import columns_of
from expander_sae.coders import FISTA, OMP, Coder, MatchingPursuit, TopK, VotingDecoder
from expander_sae.coders.tokens import largest
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.experiments.records import damaged, read_cell, write_cell
from expander_sae.experiments.settings import settled
from expander_sae.experiments.stages import Listener, Stage, Stages
from expander_sae.studies.recovery.config import DENSE, RecoveryConfig
from expander_sae.studies.recovery.theory import sets_with_condition
from expander_sae.supports import Support
from expander_sae.supports.construction import SupportError
from expander_sae.supports.statistics import max_overlap

CELLS, THEORY = "cells", "theory"
"""What the folder of a study holds, besides the report; and what the cell of a dictionary's certificates is called."""
STEPS_OF_MP = 4
"""Steps of matching pursuit for every active feature, since it may take a column several times."""
ITERATIONS = 300
"""Of the lasso at most."""
SMALLEST, LARGEST = 0.5, 1.5
"""Coefficients of uniform size lie between."""


@dataclass(frozen=True)
class Certificates:
    """What is known about a dictionary before it is tried."""

    coherence: float
    omp_k: int
    """The largest k at which OMP and l1 minimisation recover every support, by the Babel function."""
    topk_k: int
    """The same of TopK, with coefficients of these sizes."""
    welch_k: int
    """The largest k that the coherence of any dictionary of this size could prove."""
    agree: int | None
    """Equal votes that the voting decoder was told to need; None for a dense dictionary."""
    condition: list[int]
    """Random sets of k features that satisfy the exact recovery condition, for every k up to the first of which none
    does: OMP and l1 minimisation find every code on these sets."""


@dataclass(frozen=True)
class Strip:
    """A dictionary of one size under one coder: a line of cells in a picture."""

    dictionary: str
    n: int
    coder: str
    recovered: list[int]
    """Tokens whose features were found exactly, for every k up to the first at which there are none."""


@dataclass(frozen=True)
class RecoveryResult:
    """Everything that the report is made of."""

    config: RecoveryConfig
    strips: list[Strip]
    certificates: dict[tuple[str, int], Certificates]
    """By dictionary and n."""
    absent: dict[tuple[str, int], str]
    """Dictionaries that do not exist at a size, and why."""
    seconds: dict[str, float]


def run_recovery(config: RecoveryConfig, listener: Listener) -> RecoveryResult:
    """Do what an earlier run in the same folder has not done yet."""
    with settled(config, "a study of recovery"):
        (config.out / CELLS).mkdir(parents=True, exist_ok=True)
    stages, result = Stages(config.out, listener), RecoveryResult(config, [], {}, {}, {})
    missing = [(name, n) for name, n in _sizes(config) if _missing(config, name, n)]
    decoded = sum(coder != THEORY for each in missing for coder in _missing(config, *each))
    what = f"{len(config.dictionaries)} dictionaries of {len(config.features)} sizes under their coders"
    total = decoded * len(config.active) * config.tokens
    with stages.stage("decode", what, total=total or None, found=not missing) as stage, torch.no_grad():
        for name, n in missing:
            _fill(config, name, n, stage, total)
        for name, n in _sizes(config):
            _read(result, name, n)
        stage.outcome = f"{sum(len(strip.recovered) for strip in result.strips):,} cells of {config.tokens} tokens"
    return dataclasses.replace(result, seconds=stages.seconds)


def _sizes(config: RecoveryConfig) -> list[tuple[str, int]]:
    return [(name, n) for name in config.dictionaries for n in config.features]


def _file(config: RecoveryConfig, name: str, n: int, cell: str) -> Path:
    return config.out / CELLS / f"{name}-n{n}-{cell}.json"


def _missing(config: RecoveryConfig, name: str, n: int) -> list[str]:
    """The cells of a dictionary that are not on disk; none if it is known not to exist."""
    theory = _file(config, name, n, THEORY)
    if theory.exists() and "absent" in read_cell(theory):
        return []
    cells = [THEORY, *config.coders_of(name)]
    return [cell for cell in cells if not _file(config, name, n, cell).exists()]


def _fill(config: RecoveryConfig, name: str, n: int, stage: Stage, total: int) -> None:
    """Put a dictionary's missing cells on disk, one after the other."""
    missing = _missing(config, name, n)
    try:
        dictionary = make_dictionary(config, name, n)
    except SupportError as error:
        write_cell(_file(config, name, n, THEORY), {"absent": str(error)})
        return
    certificates = certificates_of(config, dictionary)
    if THEORY in missing:
        write_cell(_file(config, name, n, THEORY), vars(certificates))
    for coder in missing:
        if coder != THEORY:
            recovered = _strip(config, dictionary, coder, certificates)
            write_cell(_file(config, name, n, coder), {"active": config.active, "recovered": recovered})
            stage.proceeds(total - _left(config))


def _strip(config: RecoveryConfig, dictionary: Dictionary, coder: str, certificates: Certificates) -> list[int]:
    """Tokens recovered with ever more features, until there are none: failing takes longest, and teaches nothing."""
    recovered = list[int]()
    if coder == "lasso":  # solved to a gap far above the rounding of float32, which takes half the time
        dictionary = copy.deepcopy(dictionary).float()
    for k in config.active:
        recovered.append(exact_tokens(config, dictionary, k, coder_of(config, coder, k, certificates)))
        if recovered[-1] == 0:
            break
    return recovered


def _left(config: RecoveryConfig) -> int:
    """Tokens still to be decoded."""
    cells = sum(cell != THEORY for each in _sizes(config) for cell in _missing(config, *each))
    return cells * len(config.active) * config.tokens


def _read(result: RecoveryResult, name: str, n: int) -> None:
    """Add what is on disk of a dictionary."""
    config = result.config
    theory = _file(config, name, n, THEORY)
    try:
        content = read_cell(theory)
        if "absent" in content:
            result.absent[name, n] = content["absent"]
            return
        known = Certificates(**content)
        if not 0 < len(known.condition) <= len(config.active):
            raise damaged(theory)
        result.certificates[name, n] = known
    except TypeError as error:
        raise damaged(theory) from error
    for coder in config.coders_of(name):
        path = _file(config, name, n, coder)
        cells = read_cell(path)
        if cells.get("active") != config.active or not 0 < len(cells.get("recovered", [])) <= len(config.active):
            raise damaged(path)
        result.strips.append(Strip(name, n, coder, cells["recovered"]))


def make_dictionary(config: RecoveryConfig, name: str, n: int) -> Dictionary:
    """Unit columns in double precision: rounding plays no part in what is found."""
    generator = torch.Generator().manual_seed(config.seed)
    if name == DENSE:
        return DenseDictionary(config.m, n, dtype=torch.float64, generator=generator)
    support = Support.make(name, m=config.m, n=n, d=config.d, seed=config.seed)
    flat = config.columns == "flat"
    values = None if flat else torch.randn(n, config.d, generator=generator, dtype=torch.float64)
    dictionary = ExpanderDictionary(support, values, dtype=torch.float64, generator=generator)
    dictionary.normalise_columns()
    return dictionary


def certificates_of(config: RecoveryConfig, dictionary: Dictionary) -> Certificates:
    """What the overlaps of the columns prove, and how many votes are safe."""
    columns = columns_of(dictionary, 0.0)
    coherence = coherence_of(columns, config.m, silent)
    ratio = {"flat": 1.0, "uniform": SMALLEST / LARGEST, "gaussian": 0.0}[config.coefficients]
    agree = config.agree
    if agree is None and isinstance(dictionary, ExpanderDictionary):
        # Codes of several features, seen through weights of equal size, sum up to the same vote on all they share.
        agree = max(2, max_overlap(dictionary.support) + 1) if config.columns == "flat" else 2
    voted = agree if isinstance(dictionary, ExpanderDictionary) else None
    return Certificates(
        coherence.mu, coherence.babel_k, coherence.certified_k(ratio), coherence.welch_k or dictionary.n, voted,
        sets_with_condition(columns, config.active, config.sets, config.seed),
    )  # fmt: skip


def coder_of(config: RecoveryConfig, name: str, k: int, certificates: Certificates) -> Coder:
    """The coder that looks for k features; it may give back more, of which the largest count."""
    signed = config.signed
    match name:
        case "topk":
            return TopK(k, signed=signed)
        case "mp":
            return MatchingPursuit(min(STEPS_OF_MP * k, config.features[0]), signed=signed)
        case "omp":
            return OMP(k, signed=signed)
        case "lasso":
            return FISTA(config.penalty, k=k, iterations=ITERATIONS, signed=signed)
    return VotingDecoder(k, agree=certificates.agree or 2, signed=signed)


def planted_codes(config: RecoveryConfig, n: int, k: int) -> Codes:
    """Random features and coefficients, the same for every dictionary and coder of this size."""
    generator = torch.Generator().manual_seed((config.seed << 40) + (n << 16) + k)
    indices = torch.rand(config.tokens, n, generator=generator).argsort(dim=1)[:, :k]
    shape, double = (config.tokens, k), torch.float64
    if config.coefficients == "gaussian":
        sizes = torch.randn(shape, generator=generator, dtype=double).abs()
    elif config.coefficients == "uniform":
        sizes = SMALLEST + (LARGEST - SMALLEST) * torch.rand(shape, generator=generator, dtype=double)
    else:
        sizes = torch.ones(shape, dtype=double)
    signs = 2 * torch.randint(0, 2, shape, generator=generator) - 1 if config.signed else 1
    return Codes(sizes * signs, indices, n)


def exact_tokens(config: RecoveryConfig, dictionary: Dictionary, k: int, coder: Coder) -> int:
    """How many tokens have exactly the planted features as the k largest of their codes."""
    planted = planted_codes(config, dictionary.n, k).to(dictionary.dtype)
    found = largest(coder(dictionary, dictionary.synthesize(planted)), k)
    return int((_used(found) == _used(planted)).all(dim=1).sum())


def _used(codes: Codes) -> Bool[Tensor, "tokens n"]:
    """Which features every token uses."""
    return codes.to_dense() != 0
