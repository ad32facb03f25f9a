"""Compile every Triton kernel for the architecture and the types of x named on the command line; print what came out.

Runs in a process of its own, without Triton's interpreter; needs no GPU.
"""

import json
import re
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from expander_sae.kernels.gpu import correlate as gpu_correlate
from expander_sae.kernels.gpu import orthogonal as gpu_orthogonal
from expander_sae.kernels.gpu import pursue as gpu_pursue
from expander_sae.kernels.gpu import select as gpu_select

DEGREE = 7
SIZES = {"fp32": 4, "bf16": 2, "fp64": 8}
NUMBERS = "width batch features groups group_size splits k step"
INTEGERS = "rows chosen positions list_features taken_at refused refusals going"
LONG_INTEGERS = "starts indices best_indices"


def cases(stored: str, summed: str) -> list[tuple[object, dict[str, object], dict[str, object]]]:
    """Kernel, constants and launch options, as the functions beside the kernels give them."""
    tile = {"TOKENS": gpu_correlate.TILE}
    block = gpu_correlate.BLOCK_BYTES // SIZES[stored] // gpu_correlate.TILE
    key = tl.int64 if summed == "fp64" else tl.int32
    sums, blocks, plain = gpu_correlate.UNFUSED, gpu_correlate.BLOCK_LAUNCH, {"num_warps": 4}
    columns, signed = {"DEGREE": DEGREE}, {"SIGNED": True}
    local = {"ROWS": gpu_pursue.ROWS_AT_ONCE, "ENTRIES": gpu_pursue.ENTRIES_AT_ONCE}
    keys, lists = signed | {"INTEGER": key}, gpu_select.KEYS_PER_WARP
    result: list[tuple[object, dict[str, object], dict[str, object]]] = [
        (gpu_correlate._cut_into_tiles, tile | {"COORDINATES": gpu_correlate.COORDINATES_AT_ONCE}, plain),
        (gpu_select.maxima_of_groups, columns | signed | tile | {"BIASED": True, "GROUPS": block}, blocks | sums),
        (gpu_select._scores_of_members, columns | signed | {"MEMBERS": gpu_select.MEMBERS_AT_ONCE}, plain | sums),
        (gpu_select._positions_of_largest, keys | {"BLOCK": lists, "WHOLE": True}, {"num_warps": 1}),
        (gpu_select._in_order, keys | {"K": 32}, {"num_warps": 1}),
    ]
    if stored == summed:
        places = {
            "ENTRIES": 8,
            "SIGNED": False,
            "K": 32,
            "REFUSED": 128,
            "MEMBERS": 8,
            "GROUPS": 1024,
            "COORDINATES": 1024,
        }
        result += [
            (gpu_pursue._all_correlations, columns | tile | {"FEATURES": block}, blocks | sums),
            (gpu_pursue._touched_correlations, columns | local, plain | sums),
            (gpu_orthogonal._take_step, columns | tile | places, plain | sums),
        ]
    return result


def type_of(kernel: object, name: str, stored: str, summed: str) -> str:
    """The type that a kernel's argument has in a launch."""
    if kernel is gpu_orthogonal._take_step and name == "indices":
        return "*i32"
    if name in ("tolerance", "rounding", "dependent"):
        return "fp32"
    kinds = {"i32": NUMBERS, "*i32": INTEGERS, "*i64": LONG_INTEGERS, f"*{stored}": "x tiles values"}
    return next((kind for kind, names in kinds.items() if name in names.split()), f"*{summed}")


def compiled(kernel: object, constants: dict[str, object], options: dict[str, object], types: tuple[str, str]) -> str:
    """The machine code of a kernel, with arguments aligned as torch aligns them."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else type_of(kernel, name, *types) for name in names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name not in constants}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=options).asm["sass"]


report = {}
for types in ((name, "fp64" if name == "fp64" else "fp32") for name in sys.argv[2:]):
    for kernel, constants, options in cases(*types):
        code = compiled(kernel, constants, options, types)
        report[f"{kernel.__name__} {types[0]}"] = {
            "fused": len(re.findall(r"\b[DF]FMA", code)),
            "sums": len(re.findall(r"\b[DF]ADD", code)),
            "spilled": len(re.findall(r"\bLDL", code)),
            "wide loads": len(re.findall(r"\bLDG\.E\.128", code)),
        }
print(json.dumps(report))
