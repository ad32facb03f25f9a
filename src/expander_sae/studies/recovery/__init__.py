"""Recovery: how many of how many features can be active before a coder no longer finds exactly them."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from expander_sae.coders import FISTA, OMP, Coder, MatchingPursuit, TopK, VotingDecoder
from expander_sae.coders.base import largest
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.files import write_checked
from expander_sae.means import check_memory
from expander_sae.philox import generator_seed
from expander_sae.reporting.report import Report
from expander_sae.studies.recovery.config import DENSE, ITERATIONS, LARGEST, SMALLEST, STEPS_OF_MP, RecoveryConfig
from expander_sae.studies.recovery.report import RecoveryResult, Strip, report_of
from expander_sae.studies.recovery.theory import Certificates, certificates_of
from expander_sae.studies.study import Listener, Stage, Study, begun, damaged, read_cell
from expander_sae.supports import Support
from expander_sae.supports.construction import SupportError

CELLS, THEORY = "cells", "theory"
"""The folder of cells in that of the study, and the name of the cell of a dictionary's certificates."""


def run(config: RecoveryConfig, listener: Listener) -> Report:
    """Decode what an earlier run in the same folder has not, and say what came of it."""
    return report_of(decoded(config, listener))


def decoded(config: RecoveryConfig, listener: Listener) -> RecoveryResult:
    """Every dictionary under every coder."""
    with begun(config, listener, "a study of recovery") as stages:
        (config.out / CELLS).mkdir(parents=True, exist_ok=True)
    result = RecoveryResult(config, [], {}, {}, stages.seconds)
    missing = [(name, n) for name, n in _sizes(config) if _missing(config, name, n)]
    strips = sum(coder != THEORY for each in missing for coder in _missing(config, *each))
    what = f"{len(config.dictionaries)} dictionaries of {len(config.features)} sizes under their coders"
    total = strips * len(config.active) * config.tokens
    with stages.stage("decode", what, total=total or None, found=not missing) as stage, torch.no_grad():
        for name, n in missing:
            _fill(config, name, n, stage, total)
        for name, n in _sizes(config):
            _read(result, name, n)
        stage.outcome = f"{sum(len(strip.recovered) for strip in result.strips):,} cells of {config.tokens} tokens"
    return result


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
        write_checked(_file(config, name, n, THEORY), {"absent": str(error)})
        return
    certificates = certificates_of(config, dictionary)
    if THEORY in missing:
        write_checked(_file(config, name, n, THEORY), vars(certificates))
    for coder in missing:
        if coder != THEORY:
            recovered = _strip(config, dictionary, coder, certificates)
            write_checked(_file(config, name, n, coder), {"active": config.active, "recovered": recovered})
            stage.proceeds(total - _left(config))


def _strip(config: RecoveryConfig, dictionary: Dictionary, coder: str, certificates: Certificates) -> list[int]:
    """Tokens recovered at every k, up to the first of none: cells that fail take longest, and teach nothing."""
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
    """Add the cells of a dictionary to the result, as they are on disk."""
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
    generator = torch.Generator().manual_seed(generator_seed(config.seed, (n << 16) + k))
    held = config.tokens * (12.0 * n + 16 * k)
    check_memory(f"{config.tokens:,} tokens in a cell of {n:,} features", held, instead="give fewer tokens")
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
    """Whether every token uses every feature."""
    return codes.to_dense() != 0


STUDY = Study(RecoveryConfig, run)
