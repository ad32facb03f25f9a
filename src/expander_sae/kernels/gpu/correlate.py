"""What all Triton kernels share: correlations of a block of features with a tile of tokens.

Tokens lie along the lanes of a warp. x is cut once into tiles [m, tokens], so that the row which a feature gathers is
one coalesced load for a whole tile. A program keeps to one tile and walks over features, so the tile's rows stay in the
L1 cache of its multiprocessor. Everything is read in the precision it is stored in and summed in that of `bias`
or of the result: half precision halves the traffic and loses nothing, since its products are exact in float32.

Triton compiles a kernel anew for numbers that are 1 or multiples of 16; `do_not_specialize` names those of which that
gains nothing, since a compilation takes seconds.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from expander_sae.errors import ExpanderError

TILE = 64
"""Tokens of a tile: with more of them a loaded row number and value serve more sums. Its rows need not all stay in the
L1 cache; measured on an H200 at m=2048, tiles of 64 won over 32 and 128 in bfloat16 and in float32."""

BLOCK_BYTES = 16 << 10
"""What a program gathers at once: 16 bytes for every thread, be they numbers of two, four or eight bytes."""

BLOCK_LAUNCH = {"num_warps": 32, "maxnreg": 64}
"""One program fills a multiprocessor: all its warps then work on one tile, and the cache holds no other. The limit is
what 32 warps can have; without it the compiler keeps to half of that, and loads wait for registers or spill them."""

PROGRAMS = 512
"""Programs wanted: four for every multiprocessor of a large GPU, enough that an uneven end costs little, few enough
that each walks over many features and finds the rows of its tile in the cache."""

COORDINATES_AT_ONCE = 32
"""Coordinates that a program turns into a tile: a cache line of float32 for every token."""


UNROLLED = tl.constexpr(4)
"""Entries of columns of one length that are read before the first is added: measured on an H100 at d=16, a quarter
quicker. Columns of several lengths are read one entry at a time, since with four a pursuit took half as long again."""


@triton.jit
def correlate_block(
    x: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    degree: tl.tensor,
    UNEVEN: tl.constexpr,
    TOKENS: tl.constexpr,
    DTYPE: tl.constexpr,
) -> tl.tensor:
    """Correlations [features, TOKENS] with the tile x [m, TOKENS], summed in the order of the reference.

    `values` and `rows` point to the first entry of every feature. The degree is that of the longest: shorter columns
    have zeros behind their last entry, which leave a sum as it is.
    """
    total = tl.zeros((values.shape[0], TOKENS), dtype=DTYPE)
    for _ in tl.range(degree, loop_unroll_factor=None if UNEVEN else UNROLLED):
        row = tl.load(rows) * TOKENS
        value = tl.load(values).to(DTYPE)
        picked = tl.load(x + row[:, None] + tl.arange(0, TOKENS)[None, :]).to(DTYPE)
        total += picked * value[:, None]
        values += 1
        rows += 1
    return total


@triton.jit
def longest(lengths: tl.tensor, feature: tl.tensor, DEGREE: tl.constexpr, UNEVEN: tl.constexpr) -> tl.tensor:
    """The length of the longest of some columns; where all are of one degree, that one, known to the compiler."""
    if UNEVEN:
        return tl.max(tl.load(lengths + feature), axis=0)
    else:
        return DEGREE


UNFUSED = {"enable_fp_fusion": False}
"""A launch option that every kernel with sums needs: no fused multiply-add, so that the bits are the reference's."""

INTERPRETED = not isinstance(correlate_block, triton.JITFunction)
"""Whether TRITON_INTERPRET is set: kernels then run in Python, on tensors of any device."""


def check_device(*tensors: Tensor) -> None:
    """Refuse tensors that Triton cannot reach."""
    for tensor in tensors:
        if not tensor.is_cuda and not INTERPRETED:
            raise ExpanderError(
                f"The gpu kernels need every tensor on a CUDA device, but one is on {tensor.device}: "
                "move it there, or use implementation='auto'."
            )


def device_of(tensor: Tensor) -> torch.cuda.device:
    """A context in which kernels run where `tensor` is; Triton launches on the current device, whatever it is given."""
    return torch.cuda.device(tensor.get_device())  # -1, a tensor of the CPU, changes nothing


def features_at_once(x: Tensor) -> int:
    """Features, or groups of them, whose sums a program holds for a tile of x."""
    return BLOCK_BYTES // x.element_size() // TILE


@triton.jit(do_not_specialize=["batch"])
def _cut_into_tiles(
    x: tl.tensor, tiles: tl.tensor, batch: tl.tensor, width: tl.tensor, TOKENS: tl.constexpr, COORDINATES: tl.constexpr
) -> None:
    """tiles[tile, coordinate, token], zero for tokens behind the last."""
    tile = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, TOKENS)
    token = tile * TOKENS + lane
    coordinate = tl.program_id(1) * COORDINATES + tl.arange(0, COORDINATES)
    inside = (token < batch)[:, None] & (coordinate < width)[None, :]
    found = tl.load(x + token[:, None] * width + coordinate[None, :], mask=inside, other=0.0)
    place = (tile * width + coordinate)[:, None] * TOKENS + lane[None, :]
    tl.store(tiles + place, tl.trans(found), mask=(coordinate < width)[:, None])


def tiled(x: Float[Tensor, "batch m"]) -> Float[Tensor, "tiles m tile"]:
    """x cut into tiles that lie in one piece each, tokens last; tokens of zeros fill the last tile.

    In one piece, because rows of a transposed x would be a batch apart and fall into few sets of the cache.
    """
    batch, width = x.shape
    tiles = x.new_empty(triton.cdiv(batch, TILE), width, TILE)
    blocks = triton.cdiv(width, COORDINATES_AT_ONCE)
    _cut_into_tiles[(len(tiles), blocks)](x, tiles, batch, width, TILE, COORDINATES_AT_ONCE, num_warps=4)
    return tiles


def splits_of(blocks: int, tiles: int) -> int:
    """Programs that share a tile, each with every such block of features; neighbours in the grid are on one tile."""
    return max(1, min(blocks, PROGRAMS // tiles))
