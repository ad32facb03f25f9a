"""Splitting a batch over threads; compiled code runs with the interpreter's lock released."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TypeVar, TypeVarTuple

import torch

Arguments = TypeVarTuple("Arguments")
Made = TypeVar("Made")

_kept = threading.local()


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
    waiting = deque((start, min(stop, tokens)) for start, stop in pairwise(edges))
    helpers = [_helpers(threads - 1).submit(_work_off, work, waiting) for _ in range(threads - 1)]
    try:
        _work_off(work, waiting)
    finally:
        waiting.clear()
        # One that has not begun has nothing left to do; to wait for it could be for ever in work that splits work.
        begun = [helper for helper in helpers if not helper.cancel()]
        for helper in begun:
            helper.result()


def kept(make: Callable[[*Arguments], Made], *arguments: *Arguments) -> Made:
    """Room to work in, as `make(*arguments)` makes it, which the calling thread keeps until it needs another such.

    The system hands out large blocks page by page, at a microsecond or two for each, and takes them back when they are
    freed: new tiles for every piece of work took as long as a third of a `select`.
    """
    rooms: dict[object, tuple[object, Made]] = _kept.__dict__.setdefault("rooms", {})
    if make not in rooms or rooms[make][0] != arguments:
        rooms[make] = arguments, make(*arguments)
    return rooms[make][1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, everything runs on one thread, which is quicker where each operation has little to do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _work_off(work: Callable[[int, int], None], waiting: deque[tuple[int, int]]) -> None:
    """Take pieces until none is left."""
    while waiting:
        try:
            piece = waiting.popleft()
        except IndexError:
            return
        work(*piece)


@cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: to start one takes milliseconds where torch's idle threads spin on all cores."""
    return ThreadPoolExecutor(threads, thread_name_prefix="expander-sae")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)
