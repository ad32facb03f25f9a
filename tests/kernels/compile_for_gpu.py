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
from expander_sae.kernels.gpu import pursue as gpu_pursue
from expander_sae.kernels.gpu import select as gpu_select

DEGREE = 7
TILE = 32
NUMBERS = "width batch features groups group_size splits k"
INTEGERS = "rows chosen positions list_features"
LONG_INTEGERS = "starts indices"


def cases(stored: str, summed: str) -> list[tuple[object, dict[str, object], dict[str, object]]]:
    """Kernel, constants and launch options, as the functions beside the kernels give them."""
    block = gpu_correlate.BLOCK_SIZE // TILE
    key = tl.int64 if summed == "fp64" else tl.int32
    sums, blocks, plain = gpu_correlate.UNFUSED, gpu_correlate.BLOCK_LAUNCH, {"num_warps": 4}
    columns, signed = {"DEGREE": DEGREE}, {"SIGNED": True}
    local = {"ROWS": gpu_pursue.ROWS_AT_ONCE, "ENTRIES": gpu_pursue.ENTRIES_AT_ONCE}
    result: list[tuple[object, dict[str, object], dict[str, object]]] = [
        (gpu_correlate._cut_into_tiles, {"TOKENS": TILE, "COORDINATES": gpu_correlate.COORDINATES_AT_ONCE}, plain),
        (gpu_select._maxima_of_groups, columns | signed | {"GROUPS": block, "TOKENS": TILE}, blocks | sums),
        (gpu_select._scores_of_members, columns | signed | {"MEMBERS": gpu_select.MEMBERS_AT_ONCE}, plain | sums),
        (gpu_select._positions_of_largest, signed | {"INTEGER": key, "BLOCK": gpu_select.SCORES_AT_ONCE}, plain),
    ]
    if stored == summed:
        result += [
            (gpu_pursue._all_correlations, columns | {"FEATURES": block, "TOKENS": TILE}, blocks | sums),
            (gpu_pursue._touched_correlations, columns | local, plain | sums),
        ]
    return result


def type_of(name: str, stored: str, summed: str) -> str:
    """The type that a kernel's argument has in a launch."""
    kinds = {"i32": NUMBERS, "*i32": INTEGERS, "*i64": LONG_INTEGERS, f"*{stored}": "x tiles values"}
    return next((kind for kind, names in kinds.items() if name in names.split()), f"*{summed}")


def compiled(kernel: object, constants: dict[str, object], options: dict[str, object], types: tuple[str, str]) -> str:
    """The machine code of a kernel, with arguments aligned as torch aligns them."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else type_of(name, *types) for name in names}
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
