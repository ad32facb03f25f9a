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

from expander_sae.kernels.gpu import candidates as gpu_candidates
from expander_sae.kernels.gpu import correlate as gpu_correlate
from expander_sae.kernels.gpu import orthogonal as gpu_orthogonal
from expander_sae.kernels.gpu import products as gpu_products
from expander_sae.kernels.gpu import pursue as gpu_pursue
from expander_sae.kernels.gpu import select as gpu_select

DEGREE = 7
SIZES = {"fp32": 4, "bf16": 2, "fp64": 8}
NUMBERS = "width batch features groups group_size splits k step count picks"
INTEGERS = "rows lengths order chosen positions list_features taken_at refused refusals going out_taken"
LONG_INTEGERS = "starts indices best_indices"


def cases(stored: str, summed: str) -> list[tuple[object, dict[str, object], dict[str, object]]]:
    """Kernel, constants and launch options, as the functions beside the kernels give them."""
    tile = {"TOKENS": gpu_correlate.TILE}
    block = gpu_correlate.BLOCK_BYTES // SIZES[stored] // gpu_correlate.TILE
    key = tl.int64 if summed == "fp64" else tl.int32
    sums, blocks, plain = gpu_correlate.UNFUSED, gpu_correlate.BLOCK_LAUNCH, {"num_warps": 4}
    columns, signed, places = {"DEGREE": DEGREE}, {"SIGNED": False}, {"ENTRIES": 8, "C": 32}
    even, uneven = {"UNEVEN": False, "lengths": None}, {"UNEVEN": True}
    keys, lists = signed | {"INTEGER": key}, gpu_select.KEYS_PER_WARP
    maxima = columns | tile | signed | {"GROUPS": block}
    members = columns | signed | {"MEMBERS": gpu_select.MEMBERS_AT_ONCE}
    result: list[tuple[object, dict[str, object], dict[str, object]]] = [
        (gpu_correlate._cut_into_tiles, tile | {"COORDINATES": gpu_correlate.COORDINATES_AT_ONCE}, plain),
        (gpu_select.maxima_of_groups, maxima | even | {"BIASED": True, "order": None}, blocks | sums),
        (gpu_select.maxima_of_groups, maxima | uneven | {"BIASED": False, "bias": None}, blocks | sums),
        (gpu_select._scores_of_members, members | even, plain | sums),
        (gpu_select._positions_of_largest, keys | {"BLOCK": lists, "WHOLE": True}, {"num_warps": 1}),
        (gpu_select._in_order, keys | {"K": 32}, {"num_warps": 1}),
    ]
    if stored == summed:
        local = {"ROWS": gpu_pursue.ROWS_AT_ONCE, "ENTRIES": gpu_pursue.ENTRIES_AT_ONCE}
        step = columns | tile | signed | {"ENTRIES": 8, "K": 32, "REFUSED": 128, "MEMBERS": 8}
        step |= {"GROUPS": gpu_orthogonal.GROUPS_AT_ONCE, "COORDINATES": gpu_orthogonal.COORDINATES_AT_ONCE}
        result += [
            (gpu_pursue._all_correlations, columns | tile | {"FEATURES": block}, blocks | sums),
            (gpu_pursue._touched_correlations, columns | local, plain | sums),
            (gpu_orthogonal._take_step, step | even, {"num_warps": SIZES[stored]} | sums),
            (gpu_orthogonal._take_step, step | uneven, {"num_warps": SIZES[stored]} | sums),
            (gpu_products._correlate_at, columns | {"ENTRIES": 8, "SLOTS": 32}, plain | sums),
            (gpu_products._add_columns, columns | {"ENTRIES": 8}, {"num_warps": 1} | sums),
            (gpu_products._add_up, columns | {"ENTRIES": 8, "FIRINGS": 32}, {"num_warps": 1} | sums),
            (gpu_candidates._inner_products, columns | places | uneven, {"num_warps": 1} | sums),
            (gpu_candidates._pursue_among, signed | {"C": 32}, {"num_warps": 1} | sums),
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
        kind = " uneven" if constants.get("UNEVEN") else ""
        report[f"{kernel.__name__}{kind} {types[0]}"] = {
            "fused": len(re.findall(r"\b[DF]FMA", code)),
            "sums": len(re.findall(r"\b[DF]ADD", code)),
            "spilled": len(re.findall(r"\bLDL", code)),
            "wide loads": len(re.findall(r"\bLDG\.E\.128", code)),
        }
print(json.dumps(report))
