"""What all Triton kernels share: correlations of a block of features with a tile of tokens.

Tokens lie along the lanes of a warp. x is cut once into tiles [m, tokens], so that the row which a feature gathers is
one coalesced load for a whole tile. A program keeps to one tile and walks over features, so the tile's rows stay in the
L1 cache of its multiprocessor. Everything is read in the precision it is stored in and summed in that of `bias`
or of the result: half precision halves the traffic and loses nothing, since its products are exact in float32.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels.gpu_language import tl, triton

CACHE_BYTES = 192 << 10
"""What a tile of tokens may take: most of the 256 KiB that L1 and shared memory have together on an A100 or H100."""

TILE_SIZES = (128, 64, 32)
"""Tokens of a tile, best first: with more tokens a loaded row number and value serve more sums. With fewer than 32 a
gathered float32 row would be less than a cache line."""

BLOCK_SIZE = 2048
"""Sums a program holds: two for every thread of 32 warps. All warps of a multiprocessor then work on one tile, which
the cache holds once; more sums per thread would cost the registers that let a program have so many warps."""

BLOCK_WARPS = 32

PROGRAMS = 512
"""Programs wanted: four for every multiprocessor of a large GPU, enough that an uneven end costs little, few enough
that each walks over many features and finds the rows of its tile in the cache."""


@triton.jit
def correlate_block(
    x: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    features: tl.tensor,
    TOKENS: tl.constexpr,
    DEGREE: tl.constexpr,
    DTYPE: tl.constexpr,
) -> tl.tensor:
    """Correlations [features, TOKENS] with the tile x [m, TOKENS], summed in the order of the reference."""
    total = tl.zeros((features.shape[0], TOKENS), dtype=DTYPE)
    first = features.to(tl.int64) * DEGREE
    for slot in range(DEGREE):
        row = tl.load(rows + first + slot) * TOKENS
        value = tl.load(values + first + slot).to(DTYPE)
        picked = tl.load(x + row[:, None] + tl.arange(0, TOKENS)[None, :]).to(DTYPE)
        total += picked * value[:, None]
    return total


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


def tile_size(width: int, element_bytes: int) -> int:
    """Tokens of a tile: as many as the cache has room for."""
    fitting = (size for size in TILE_SIZES if size * width * element_bytes <= CACHE_BYTES)
    return next(fitting, TILE_SIZES[-1])


def tiled(x: Float[Tensor, "batch m"], tile: int) -> Float[Tensor, "tiles m tile"]:
    """x cut into tiles that lie in one piece each, tokens last; tokens of zeros fill the last tile.

    In one piece, because rows of a transposed x would be a batch apart and fall into few sets of the cache.
    """
    batch, width = x.shape
    tiles = triton.cdiv(batch, tile)
    turned = x.new_zeros(tiles, width, tile)
    whole = batch // tile
    turned[:whole] = x[: whole * tile].reshape(whole, tile, width).mT
    if whole < tiles:
        turned[whole, :, : batch - whole * tile] = x[whole * tile :].T
    return turned


def grid(tiles: int, blocks: int) -> tuple[int, int]:
    """Programs (along features, along tokens): about PROGRAMS, each with a share of the blocks of features."""
    return max(1, min(blocks, triton.cdiv(PROGRAMS, tiles))), tiles
