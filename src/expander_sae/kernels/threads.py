"""Splitting a batch over threads; compiled code runs with the interpreter's lock released."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch


def over_tiles(work: Callable[[int, int], None], tokens: int, tile: int) -> None:
    """Call `work(start, stop)` on pieces that cover range(tokens), on as many threads as torch uses.

    Pieces are whole tiles, several for each thread, so that a slow core does not hold up the others.
    """
    tiles = -(-tokens // tile)
    threads = min(torch.get_num_threads(), tiles)
    if threads <= 1:
        work(0, tokens)
        return
    pieces = min(tiles, 4 * threads)
    edges = [tile * (tiles * piece // pieces) for piece in range(pieces + 1)]
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, start, min(stop, tokens)) for start, stop in pairwise(edges)]
        for future in futures:
            future.result()
