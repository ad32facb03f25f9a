"""Planted codes: how well and how fast coders find them again, on a sparse and on a dense dictionary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.checks import Count, Seed, StudyFolder, Weight, check_fields
from expander_sae.coders import OMP, Coder, MatchingPursuit, TopK
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.means import check_memory
from expander_sae.reporting.report import Report
from expander_sae.reporting.tables import Table
from expander_sae.studies.study import Listener, Study, begun, notes_of, settings_of
from expander_sae.supports import Support

DENSE = "dense"
"""The name of the dense dictionary."""
RUNS = 5
"""Coders on dictionaries: three on the expander one, two on the dense one."""


@dataclass(frozen=True)
class PlantedConfig:
    """Recover planted sparse codes with TopK, matching pursuit and OMP, beside a dense dictionary.

    No model and no store: a minute at most, and measured anew whenever it is run.
    """

    m: Count = 2048
    """Width of an activation."""
    n: Count = 16384
    """Number of features."""
    d: Count = 7
    """Learned values per column."""
    k: Count = 32
    """Active features per token."""
    tokens: Count = 256
    """Activations to make and to decode."""
    construction: str = "uniform"
    """How the support is made (see `xs.Support.make`)."""
    noise: Weight = 0.0
    """Norm of added noise as a share of the activation's norm."""
    seed: Seed = 0
    """Seed of the support, the values, the codes and the noise."""
    out: StudyFolder = Path("runs/planted")
    """The folder of the report."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.k > self.n:
            raise ExpanderError(f"k must be between 1 and the number of features, {self.n}, not {self.k}.")


@dataclass(frozen=True)
class Found:
    """What one coder found on one dictionary."""

    dictionary: str
    coder: str
    recall: float
    """Share of the planted features that were found."""
    exact: float
    """Share of the tokens whose features were found without exception."""
    error: float
    """Norm of what is left of the activations, as a share of theirs."""
    milliseconds: float
    """Time per 1000 tokens."""
    dictionary_bytes: int
    """What the dictionary's values and rows take in memory."""


def run(config: PlantedConfig, listener: Listener) -> Report:
    """Look for the planted codes under every coder, and say what came of it."""
    held = 4.0 * config.tokens * (3 * config.m + 3 * config.k) + 4.0 * config.n * (config.m + 2 * config.d)
    check_memory("Everything that is planted", held, instead="give a smaller n or fewer tokens")
    with begun(config, listener, "a study of planted codes") as stages:
        support = Support.make(config.construction, m=config.m, n=config.n, d=config.d, seed=config.seed)
    found = list[Found]()
    what = f"{config.k} of {config.n:,} columns in {config.tokens:,} activations; the first run compiles kernels"
    with stages.stage("recover", what, total=RUNS * config.tokens) as stage:
        for each in recover_planted(config, support):
            found.append(each)
            stage.proceeds(len(found) * config.tokens)
        stage.outcome = f"{len(found)} coders on their dictionaries"
    settings = settings_of(config)
    return Report(
        name="planted",
        title="Planted codes, found again",
        findings=findings(found),
        tables={"Every coder": table_of(found)},
        notes=notes_of(__package__, **settings),
        facts={"settings": settings, "seconds": stages.rounded},
        rows=[vars(each) for each in found],
    )


def findings(found: Sequence[Found]) -> list[str]:
    """What the dense dictionary costs beside the sparse one, in memory and in time."""
    by_topk = {each.dictionary == DENSE: each for each in found if each.coder == TopK.__name__}
    dense, expander = by_topk[True], by_topk[False]
    times = dense.milliseconds / expander.milliseconds
    said = f"{times:.1f} times less time" if times >= 1 else f"{1 / times:.1f} times as long"
    return [
        f"In memory the expander dictionary is {dense.dictionary_bytes / expander.dictionary_bytes:.0f} times smaller "
        f"(values and rows), and its TopK codes took {said}."
    ]


def table_of(found: Sequence[Found]) -> Table:
    """A line for every coder on every dictionary."""
    return Table.of(found, {
        "dictionary": lambda each: each.dictionary,
        "coder": lambda each: each.coder,
        "features found": lambda each: f"{each.recall:.1%}",
        "tokens exact": lambda each: f"{each.exact:.1%}",
        "error": lambda each: f"{each.error:.4f}",
        "ms per 1000 tokens": lambda each: f"{each.milliseconds:.1f}",
        "memory": lambda each: f"{each.dictionary_bytes / 2**20:.1f} MiB",
    })  # fmt: skip


def planted_codes(config: PlantedConfig, generator: torch.Generator) -> Codes:
    """k distinct random features per token, coefficients uniform in [0.5, 1.5]."""
    indices = torch.stack([torch.randperm(config.n, generator=generator)[: config.k] for _ in range(config.tokens)])
    return Codes(torch.rand(indices.shape, generator=generator) + 0.5, indices, config.n)


def score(found: Codes, planted: Codes) -> tuple[float, float]:
    """(share of planted features found, share of tokens with all of them found and no other)."""
    hit = (planted.indices[..., None] == torch.where(found.active, found.indices, -1)[..., None, :]).any(dim=-1)
    whole = hit.all(dim=-1) & (found.l0 == planted.l0)
    return float(hit.float().mean()), float(whole.float().mean())


def _recover(name: str, dictionary: Dictionary, coder: Coder, planted: Codes, x: Float[Tensor, "tokens m"]) -> Found:
    coder(dictionary, x[:64])  # compiled once, not timed
    start = time.perf_counter()
    found = coder(dictionary, x)
    elapsed = time.perf_counter() - start
    recall, exact = score(found, planted)
    error = float(torch.linalg.vector_norm(x - dictionary.synthesize(found)) / torch.linalg.vector_norm(x))
    tensors = [dictionary.values, dictionary.rows] if isinstance(dictionary, ExpanderDictionary) else []
    size = sum(tensor.nbytes for tensor in tensors or dictionary.parameters())
    return Found(name, type(coder).__name__, recall, exact, error, 1e6 * elapsed / len(x), size)


@torch.no_grad()
def recover_planted(config: PlantedConfig, support: Support) -> Iterator[Found]:
    """TopK, matching pursuit and OMP on an expander dictionary, and TopK and OMP on a dense one of the same size."""
    generator = torch.Generator().manual_seed(config.seed)
    expander = ExpanderDictionary(support, generator=generator)
    planted = planted_codes(config, generator)
    coders: list[Coder] = [TopK(config.k), MatchingPursuit(config.k), OMP(config.k)]
    x = _noisy(expander.synthesize(planted), config, generator)
    for coder in coders:
        yield _recover(f"expander, d={config.d}", expander, coder, planted, x)
    dense = DenseDictionary(config.m, config.n, generator=generator)
    x = _noisy(dense.synthesize(planted), config, generator)
    for coder in (coders[0], coders[2]):
        yield _recover(DENSE, dense, coder, planted, x)


def _noisy(
    x: Float[Tensor, "tokens m"], config: PlantedConfig, generator: torch.Generator
) -> Float[Tensor, "tokens m"]:
    noise = torch.randn(x.shape, generator=generator)
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True) / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
    return x + config.noise * norms * noise


STUDY = Study(PlantedConfig, run)
