"""Everything that a frontier compares: the expander line, and what an engineer would do instead at its sizes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from expander_sae.activations.store import Store
from expander_sae.autoencoder import Quantised, SparseAutoencoder, describe, is_autoencoder
from expander_sae.coders import OMP, Candidates, Coder, TopK
from expander_sae.studies.coding.costs import Sizes
from expander_sae.studies.frontier.compressing import (
    PACKED,
    fine_tuned,
    low_rank,
    multiplied,
    product_quantised,
    pruned,
    two_bits,
    written_dense,
)
from expander_sae.studies.frontier.config import FrontierConfig, SeedConfigs
from expander_sae.training import TrainConfig

EXPANDER, READABLE, FEWER, LOW_RANK, PRUNED, ROUNDED, PRODUCTS = FAMILIES = (
    "expander", "readable expander", "fewer columns", "low rank", "pruned", "fewer bits", "product-quantised",
)  # fmt: skip
"""What a dictionary was made smaller by."""
EXPANDERS = (EXPANDER, READABLE)
"""Those of ours: trained to explain most, and to be read."""
REFERENCE = "dense float16"
"""The one that all others are compared with."""
CoderName = Literal["topk", "candidates", "omp"]
CODERS: dict[CoderName, type[Coder]] = {"topk": TopK, "candidates": Candidates, "omp": OMP}
"""What dictionaries are measured under; each takes the k of the config."""
LoopName = Literal["topk", "omp"]
LOOPS: tuple[LoopName, ...] = ("topk", "omp")
"""What pruned dictionaries are trained once more with."""


def coder_for(name: CoderName, k: int, own: Coder) -> Coder:
    """The coder of this name for k features per token; a dictionary that was trained with candidates keeps its own."""
    return own if name == "candidates" and isinstance(own, Candidates) else CODERS[name](k=k)  # type: ignore[call-arg]


@dataclass(frozen=True)
class Contestant:
    """A dictionary of the comparison, and how it is made."""

    family: str
    name: str
    seed: int
    coders: tuple[CoderName, ...]
    """What it is measured under."""
    values: Quantised | None
    """What its file keeps values in; None is float16."""
    make: Callable[[], SparseAutoencoder]

    def path_in(self, folder: Path) -> Path:
        """Its own folder in that of all."""
        coder = self.coders[0] if len(self.coders) == 1 else ""
        return folder / f"seed{self.seed}-{_slug(f'{self.name} {coder}')}"

    def is_in(self, folder: Path) -> bool:
        """Whether it was made already."""
        return is_autoencoder(self.path_in(folder))

    def write_to(self, folder: Path) -> None:
        """Make it and put it on disk, in as few bytes as its form has."""
        self.make().save(self.path_in(folder), dtype=torch.float16, values=self.values)


def cell_name(contestant: Contestant, coder: CoderName) -> str:
    """What a file is called that holds what was measured of it under a coder."""
    return f"seed{contestant.seed}-{_slug(f'{contestant.name} {coder}')}"


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def multiply_adds(contestant: Contestant, coder: CoderName, folder: Path, k: int) -> int:
    """Per token, to find the codes and to put the reconstruction together; rounded columns count as dense ones."""
    described = describe(contestant.path_in(folder))
    form, own = described.provenance.get(PACKED), described.coder["parameters"]
    values = described.m * described.n
    if contestant.family == LOW_RANK and form is not None:
        values = form["learned_values"]  # of the two factors
    elif contestant.family in (*EXPANDERS, PRUNED):
        values = described.learned_values - described.m - described.n * described.latent_bias
    sizes = Sizes(described.m, described.n, round(values / described.n), min(k, described.n), hidden=0)
    of_codes = {
        "topk": sizes.product,
        "candidates": sizes.choosing(own.get("candidates") or Candidates(k).width),
        "omp": sizes.pursuing(),
    }
    return of_codes[coder] + sizes.k * sizes.entries


def cost_of(folder: Path) -> tuple[int, int]:
    """(learned values, bytes on disk) of the autoencoder in a folder, biases and description included."""
    described = describe(folder)
    form = described.provenance.get(PACKED)
    if form is None:
        return described.learned_values, described.bytes_on_disk
    biases = described.m + described.n * described.latent_bias
    rest = described.bytes_by_part["biases"] + described.bytes_by_part["description"]
    return form["learned_values"] + biases, form["bytes"] + rest


def contestants(
    config: FrontierConfig,
    plans: Mapping[int, SeedConfigs],
    trained: Callable[[TrainConfig], SparseAutoencoder],
    source: Store | Tensor,
) -> list[Contestant]:
    """All of them, seed by seed, the reference of each seed first; `trained` gives back what training made."""
    found = []
    for seed, plan in plans.items():
        found += [*_dense(config, plan, trained, seed), *_lines(plan, trained, seed)]
        found += _tuned(config, plan, trained, source, seed)
    return found


def _dense(
    config: FrontierConfig, plan: SeedConfigs, trained: Callable[[TrainConfig], SparseAutoencoder], seed: int
) -> list[Contestant]:
    """The dense dictionary, and what needs no further training to make it smaller."""

    def dense() -> SparseAutoencoder:
        return trained(plan.dense)

    def of(length: int) -> Callable[[], SparseAutoencoder]:
        return lambda: product_quantised(dense(), length)

    return [
        Contestant(ROUNDED, REFERENCE, seed, tuple(CODERS), None, dense),
        Contestant(ROUNDED, "dense int8", seed, tuple(CODERS), "int8", dense),
        Contestant(ROUNDED, "dense int4", seed, tuple(CODERS), "int4", dense),
        Contestant(ROUNDED, "dense 2 bits", seed, tuple(CODERS), None, lambda: two_bits(dense())),
        *(
            Contestant(PRODUCTS, f"dense PQ {length}", seed, tuple(CODERS), None, of(length))
            for length in config.sub_vectors
        ),
    ]  # fmt: skip


def _lines(plan: SeedConfigs, trained: Callable[[TrainConfig], SparseAutoencoder], seed: int) -> list[Contestant]:
    """What training made as it is: expander dictionaries of every degree, and dense ones of fewer columns."""

    def as_trained(config: TrainConfig) -> Callable[[], SparseAutoencoder]:
        return lambda: trained(config)

    def without_rows(config: TrainConfig) -> Callable[[], SparseAutoencoder]:
        return lambda: written_dense(trained(config))

    return [
        *(
            Contestant(EXPANDER, f"expander d={each.d}", seed, ("omp",), "int8", as_trained(each))
            for each in plan.expanders
        ),
        *(
            Contestant(READABLE, f"readable d={each.d}", seed, ("candidates", "omp"), "int8", as_trained(each))
            for each in plan.readable
        ),
        *(
            Contestant(FEWER, f"dense n={each.n}", seed, ("topk",), "int8", as_trained(each))
            for each in plan.matched
        ),
        *(
            Contestant(FEWER, f"dense n={each.n}", seed, ("omp",), "int8", without_rows(each))
            for each in plan.matched_pursuit
        ),
    ]  # fmt: skip


def _tuned(
    config: FrontierConfig,
    plan: SeedConfigs,
    trained: Callable[[TrainConfig], SparseAutoencoder],
    source: Store | Tensor,
    seed: int,
) -> list[Contestant]:
    """What is cut out of the dense dictionary and then trained once more."""
    tokens = max(plan.dense.batch, round(config.fine_tune * plan.dense.tokens))
    once_more = dataclasses.replace(plan.dense, tokens=tokens, shuffle_seed=plan.dense.shuffle_seed + 1)

    def prune(d: int, coder: LoopName) -> Callable[[], SparseAutoencoder]:
        # Any recipe will do: rows are there already, and those of a recipe stay.
        tuning = dataclasses.replace(once_more, d=d, coder=coder, construction="uniform")
        return lambda: fine_tuned(pruned(trained(plan.dense), d, tuning.make_coder()), tuning, source)

    def factorise(rank: int) -> Callable[[], SparseAutoencoder]:
        # Dead columns cannot learn on their own where all share their factors.
        tuning = dataclasses.replace(once_more, auxk=0.0)
        return lambda: multiplied(fine_tuned(low_rank(trained(plan.dense), rank), tuning, source))

    degrees = [each.d for each in plan.expanders if each.d is not None]
    return [
        *(
            Contestant(PRUNED, f"pruned d={d}", seed, (coder,), "int8", prune(d, coder))
            for d in degrees
            for coder in LOOPS
        ),
        *(
            Contestant(LOW_RANK, f"dense rank {rank}", seed, LOOPS, None, factorise(rank))
            for rank in _ranks(degrees, once_more.n, _width(source))
        ),
    ]  # fmt: skip


def _ranks(degrees: Sequence[int], n: int, m: int) -> list[int]:
    """The ranks whose factors are as many values as each degree's; two small degrees may share one."""
    return list(dict.fromkeys(max(1, round(n * d / (n + m))) for d in degrees))


def _width(source: Store | Tensor) -> int:
    return source.width if isinstance(source, Store) else source.shape[1]
