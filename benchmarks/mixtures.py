"""What dictionaries leave unexplained under three coders, and what that costs: mixtures of atoms, dense columns.

`python -m benchmarks.mixtures HELD_OUT AUTOENCODER ...` codes 4,096 ordinary tokens of a store with each autoencoder,
on one thread: by one product (topk), refitted among likely features (candidates), and by orthogonal matching pursuit.
Prints the table of docs/choosing.md and writes benchmarks/results/mixtures.json. Where there are enough mixtures that
began as tokens (`--atoms-from`), also says how FVU goes with n, p and d.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae import OMP, ComposedDictionary, SparseAutoencoder, Store, TopK
from expander_sae.activations.store import Batches
from expander_sae.benchmarking.measure import describe_machine
from expander_sae.coders import Candidates, Coder

K, CANDIDATES, TOKENS, BATCH = 16, 17, 4096, 1024
CODERS: dict[str, Coder] = {"topk": TopK(K), "candidates": Candidates(K, CANDIDATES), "omp": OMP(K)}
RESULTS = Path(__file__).parent / "results" / "mixtures.json"


def held_out(path: Path, tokens: int) -> Float[Tensor, "tokens m"]:
    """Ordinary tokens of a store."""
    with Batches(Store.open(path), batch=BATCH, seed=0) as batches:
        return torch.cat([next(batches) for _ in range(tokens // BATCH)]).float()


@torch.no_grad()
def measured(sae: SparseAutoencoder, x: Float[Tensor, "tokens m"]) -> dict[str, float]:
    """FVU and milliseconds of the processor per token under every coder."""
    variation, found = float((x - x.mean(dim=0)).square().sum()), {}
    for name, coder in CODERS.items():
        coded = sae.with_coder(coder)
        coded.encode(x[:64])  # compiled once, not timed
        began = time.process_time()
        codes = coded.encode(x)
        found[f"{name} ms"] = 1e3 * (time.process_time() - began) / len(x)
        found[name] = float((x - coded.decode(codes)).square().sum()) / variation
    return found


def row_of(name: str, x: Float[Tensor, "tokens m"]) -> dict[str, Any]:
    """What one autoencoder is, and what it does."""
    sae = SparseAutoencoder.load(name)
    dictionary = sae.dictionary
    row: dict[str, Any] = {"name": Path(name).name, "n": sae.n, "values": dictionary.learned_values}
    row["coder"] = type(sae.coder).__name__
    if isinstance(dictionary, ComposedDictionary):
        row |= {"p": dictionary.atoms.n, "d": dictionary.mixtures.learned_values / sae.n}
    row |= measured(sae, x)
    times = ", ".join(f"{row[f'{coder} ms']:.2f}" for coder in CODERS)
    fvus = " | ".join(f"{row[coder]:.3f}" for coder in CODERS)
    print(f"| {row['name']} | {row['n']:,} | {row['values'] / 1e6:.2f} M | {fvus} | {times} |", flush=True)
    return row


def exponents(rows: list[dict[str, Any]], coder: str) -> dict[str, float] | None:
    """The powers of n, p and d that FVU goes with, by least squares of logarithms; none for too few mixtures.

    Only mixtures that were trained alike are put together: those of the readable objective.
    """
    mixtures = [row for row in rows if "p" in row and row["coder"] == Candidates.__name__]
    sizes = np.log([[row[name] for name in ("n", "p", "d")] for row in mixtures])
    design = np.column_stack([sizes, np.ones(len(mixtures))]) if mixtures else np.empty((0, 4))
    if len(mixtures) < 6 or np.linalg.matrix_rank(design) < 4:
        return None
    found, *_ = np.linalg.lstsq(design, np.log([row[coder] for row in mixtures]), rcond=None)
    off = np.abs(np.exp(design @ found) / [row[coder] for row in mixtures] - 1).max()
    return dict(zip(("n", "p", "d", "at worst off by"), (*found[:3], off), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="activations that none of them was trained on")
    parser.add_argument("autoencoders", nargs="+")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"how many of them, a multiple of {BATCH}")
    arguments = parser.parse_args()
    if arguments.tokens < BATCH or arguments.tokens % BATCH:
        parser.error(f"--tokens must be a multiple of {BATCH}, not {arguments.tokens}")
    torch.set_num_threads(1)
    x = held_out(arguments.store, arguments.tokens)
    print("| dictionary | n | values | topk | candidates | omp | ms a token |\n|---|---|---|---|---|---|---|")
    rows = [row_of(name, x) for name in arguments.autoencoders]
    laws = {coder: exponents(rows, coder) for coder in CODERS}
    for coder, law in laws.items():
        if law is not None:
            print(
                f"{coder}: FVU ~ n^{law['n']:.3f} p^{law['p']:.3f} d^{law['d']:.3f}, {law['at worst off by']:.1%} off"
            )
    RESULTS.write_text(
        json.dumps({"machine": describe_machine(), "tokens": len(x), "rows": rows, "laws": laws}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
