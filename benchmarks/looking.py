"""What tokens miss that look at a share of the features only, and how much sooner they are done.

`python -m benchmarks.looking STORE [AUTOENCODER ...]` takes 1,024 tokens of a store, on one thread, and dictionaries of
2^14 to 2^24 columns with d=7: on random coordinates, as `--construction uniform` begins, and on the largest ones of
tokens, as learned rows begin; then those of the autoencoders. Prints the table of docs/performance.md and writes
benchmarks/results/looking.json. `--largest 20` stops at 2^20. Takes some ten minutes, and 4 GB at 2^24.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae import Codes, Dictionary, ExpanderDictionary, SparseAutoencoder, Store, Support, TopK
from expander_sae.activations.store import Batches
from expander_sae.benchmarking.measure import describe_machine
from expander_sae.training.alphabets import rows_of_largest

D, K, TOKENS, SEEN, REPEATS = 7, 16, 1024, 16_384, 3
SHARES = (0.02, 0.05, 0.1, 0.2)
SIZES = (14, 16, 18, 20, 22, 24)
Problem = tuple[str, Dictionary, Tensor | None, Tensor]
"""What it is called, the dictionary, its latent bias, and the tokens as it sees them."""


def some_tokens(path: Path) -> Float[Tensor, "tokens m"]:
    """Ordinary tokens of the store: those to look for, then those that columns are made of."""
    with Batches(Store.open(path), batch=TOKENS, seed=0) as batches:
        return torch.cat([next(batches) for _ in range(1 + SEEN // TOKENS)])


def beginnings(tokens: Float[Tensor, "tokens m"], largest: int) -> Iterator[Problem]:
    """Dictionaries as training begins with them."""
    m = tokens.shape[1]
    centred = tokens - tokens.mean(dim=0)
    centred *= m**0.5 / torch.linalg.vector_norm(centred, dim=1).mean()
    x, seen = centred[:TOKENS].contiguous(), centred[TOKENS:]
    for size in (size for size in SIZES if size <= largest):
        support = Support.make("uniform", m=m, n=1 << size, d=D, seed=0)
        generator = torch.Generator().manual_seed(0)
        yield f"random, n=2^{size}", ExpanderDictionary(support, generator=generator), None, x
        rows, values = rows_of_largest(seen, seen.std(dim=0), 1 << size, D)
        yield f"of tokens, n=2^{size}", ExpanderDictionary(Support.from_rows(rows, m), values), None, x


def trained(path: Path, tokens: Float[Tensor, "tokens m"]) -> Problem:
    """What an autoencoder reads codes off."""
    sae = SparseAutoencoder.load(path).requires_grad_(False)
    name = f"{path.name}, n={sae.n:,}"
    return name, sae.encoder, sae.latent_bias, tokens[:TOKENS] * sae.scale - sae.pre_bias


def seconds(work: Callable[[], Codes]) -> tuple[float, Codes]:
    """The processor's time for a call, the median of some, and what it gives."""
    found, times = work(), []
    for _ in range(REPEATS):
        began = time.thread_time()
        found = work()
        times.append(time.thread_time() - began)
    return statistics.median(times), found


def unexplained(dictionary: Dictionary, x: Tensor, codes: Codes, size: float) -> float:
    """FVU under codes times one number."""
    left = x - size * dictionary.synthesize(codes)
    return float(left.square().sum() / (x - x.mean(dim=0)).square().sum())


@torch.no_grad()
def measured(problem: Problem) -> dict[str, object]:
    """The row of a dictionary: exact codes, and those of every share."""
    name, dictionary, bias, x = problem
    exact_seconds, exact = seconds(lambda: TopK(K)(dictionary, x, bias))
    guess = dictionary.synthesize(exact)
    size = float((guess * x).sum() / guess.square().sum())  # columns alike explain a token many times over
    began = time.thread_time()
    dictionary.make_groups(x, bias)
    row: dict[str, object] = {
        "dictionary": name,
        "exact_us": 1e6 * exact_seconds / len(x),
        "fvu": unexplained(dictionary, x, exact, size),
        "grouping_s": time.thread_time() - began,
        "shares": {},
    }
    for share in SHARES:
        took, codes = seconds(lambda share=share: TopK(K, look=share)(dictionary, x, bias))  # type: ignore[misc]
        here = (codes.indices[:, :, None] == exact.indices[:, None, :]).any(dim=1)
        row["shares"][share] = {  # type: ignore[index]
            "recall": float(here.float().mean()),
            "times_faster": exact_seconds / took,
            "fvu": unexplained(dictionary, x, codes, size),
        }
    return row


def as_line(row: dict[str, object]) -> str:
    """A row of the table in docs/performance.md."""
    shares = [
        f"{100 * each['recall']:.1f} %, {each['times_faster']:.1f}x, {each['fvu']:.3f}"
        for each in row["shares"].values()  # type: ignore[attr-defined]
    ]
    return f"| {row['dictionary']} | {row['exact_us']:,.1f} | {row['fvu']:.3f} | {' | '.join(shares)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("autoencoders", type=Path, nargs="*")
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    tokens, rows = some_tokens(given.store), []
    print("| dictionary | exact, us a token | FVU | " + " | ".join(f"look {share:g}" for share in SHARES) + " |")
    print("|" + "---|" * (3 + len(SHARES)))

    def problems() -> Iterator[Problem]:
        yield from (trained(path, tokens) for path in given.autoencoders)
        yield from beginnings(tokens, given.largest)

    for problem in problems():
        rows.append(measured(problem))
        print(as_line(rows[-1]), flush=True)
    found = {"machine": describe_machine(), "m": tokens.shape[1], "d": D, "k": K, "tokens": TOKENS, "rows": rows}
    (Path(__file__).parent / "results" / "looking.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
