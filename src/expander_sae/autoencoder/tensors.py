"""The tensor file: how it holds learned tensors and rows, and the checks that each passes on its way in and out.

Learned tensors are floats, or values as small integers with a scale per column. Where columns differ in length, the
values that there are stand in one line. Rows that no recipe makes are packed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int8, Int32, Shaped, UInt8
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from expander_sae.autoencoder.config import BITS, Config, Learned, dtype_name
from expander_sae.autoencoder.dictionaries import BlockRecord
from expander_sae.autoencoder.folder import AUTOENCODER, read_folder, write_folder
from expander_sae.dictionaries.quantised import dequantise, quantise, scale_codes, scales_from
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.supports import Support
from expander_sae.supports.packing import PackedRows, pack_rows, unpack_rows

Layout = dict[str, tuple[tuple[int, ...] | None, torch.dtype]]
"""Shape and dtype of the tensors in the file by name; no shape where only the content can tell it."""

Places = Bool[Tensor, "n d"]
"""Which values [n, d] there are, where columns differ in length."""

PARTS = {
    "values": ("values", "integers"),
    "scales": ("scales",),
    "rows": ("rows", "remainders", "quotients", "order", "degrees"),
    "biases": ("bias", "thresholds"),
}
"""How the names of the tensors of each part of the file end."""


@dataclass(frozen=True)
class Stored:
    """The verified content of a folder."""

    config: Config
    tensors: dict[str, Tensor]
    """Every learned tensor, and the stored rows."""
    library_version: str
    bytes_by_part: dict[str, int]
    """Bytes of values, scales, rows and biases, and of the description: the config and the tensors' names."""


def read(folder: Path) -> Stored:
    """What a folder holds, every check passed that needs no model."""
    content, data = read_folder(folder)
    path = folder / AUTOENCODER.seal
    config = Config.parse(content, path)
    tensors = _from_bytes(data, config, folder)
    sizes = {part: sum(t.nbytes for name, t in tensors.items() if name.endswith(ends)) for part, ends in PARTS.items()}
    sizes["description"] = path.stat().st_size + len(data) - sum(sizes.values())
    rows = {name: _rows_from(name, block, tensors, config) for name, block in _stored_rows(config).items()}
    learned = {each.name: _learned_from(each, tensors, rows) for each in config.learned()}
    return Stored(config, learned | rows, str(content["library_version"]), sizes)


def write(folder: Path, config: Config, learned: Mapping[str, Tensor], supports: Mapping[str, Support]) -> None:
    """Make the folder hold this autoencoder: its learned tensors, and its supports by the name of their rows."""
    content = config.to_json()
    tensors: dict[str, Tensor] = {}
    for each in config.learned():
        places = None if each.entries is None else supports[str(each.rows)].rows >= 0
        tensors |= _held(each, learned[each.name], places)
    for name in _stored_rows(config):
        packed = pack_rows(supports[name].rows.numpy(), supports[name].m)
        tensors |= {f"{name}.{part}": torch.from_numpy(bits) for part, bits in vars(packed).items() if bits is not None}
    write_folder(folder, content, tensors)


def convert(name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """A copy in another dtype; refuses values that are not finite, before or after."""
    _check_finite(name, tensor)
    converted = tensor.detach().to(device=device, dtype=dtype, copy=True)
    if not torch.isfinite(converted).all():
        largest, name_of_dtype = float(tensor.detach().abs().max()), dtype_name(dtype)
        raise StorageError(f"{name} reaches {largest:.4g}, too much for {name_of_dtype}; use float32 or bfloat16.")
    return converted


def _check_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity."""
    if not torch.isfinite(tensor).all():
        raise StorageError(f"{name} has values that are not finite, which no autoencoder can use; train it again.")


def _stored_rows(config: Config) -> dict[str, BlockRecord]:
    """The blocks whose rows are in the file, by the names of these rows."""
    return {f"{prefix}rows": block for prefix, block in config.dictionary.blocks_inside() if block.rows_are_stored}


def _layout(config: Config) -> Layout:
    """What the tensor file holds."""
    layout: Layout = {}
    for each in config.learned():
        shape = each.shape if each.entries is None else (each.entries,)
        if each.quantised is None:
            layout[each.name] = shape, each.dtype
            continue
        pairs = (-(-each.size // 2),), torch.uint8
        layout[f"{each.name}.integers"] = pairs if each.quantised == "int4" else (shape, torch.int8)
        layout[f"{each.name}.scales"] = (each.shape[0],), torch.uint8
    for name, block in _stored_rows(config).items():
        if config.rows_are_packed:
            layout |= {f"{name}.{part}": (None, torch.uint8) for part in _packed_parts(block)}
        else:
            layout[name] = (block.n, block.d), torch.uint16 if block.m <= 65536 else torch.int32
    return layout


def _from_bytes(data: bytes, config: Config, path: Path) -> dict[str, Tensor]:
    """The tensors of a tensor file as they are, which must be exactly those that the config speaks of."""
    try:
        tensors = safetensors.load(data)
    except (SafetensorError, KeyError) as error:
        raise StorageError(
            f"The tensor file in {path} is not readable: {error}; save the autoencoder again."
        ) from error
    expected = _layout(config)
    for problem, names in (("misses", expected.keys() - tensors), ("has the unexpected", tensors.keys() - expected)):
        if names:
            raise StorageError(
                f"The tensor file in {path} {problem} {', '.join(sorted(names))}; save the autoencoder again."
            )
    for name, (shape, dtype) in expected.items():
        found = tensors[name]
        if found.dtype != dtype or (shape is not None and tuple(found.shape) != shape):
            asked = f"{dtype_name(dtype)} {'' if shape is None else list(shape)}".strip()
            raise StorageError(
                f"{name} in {path} is {dtype_name(found.dtype)} {list(found.shape)}, but the config asks for "
                f"{asked}; save the autoencoder again."
            )
    return tensors


def _packed_parts(block: BlockRecord) -> list[str]:
    """What packed rows consist of; only columns that differ in length need their degrees."""
    return [part.name for part in fields_of(PackedRows) if part.name != "degrees" or block.entries is not None]


def _rows_from(name: str, block: BlockRecord, tensors: Mapping[str, Tensor], config: Config) -> Int32[Tensor, "n d"]:
    """The rows [n, d] of this name."""
    if not config.rows_are_packed:
        return tensors[name]
    packed = PackedRows(**{part: tensors[f"{name}.{part}"].numpy() for part in _packed_parts(block)})
    try:
        return torch.from_numpy(unpack_rows(packed, block.m, block.n, block.d))
    except (ValueError, MemoryError) as error:  # ours among them, and numpy's about sizes that nothing has
        raise StorageError(f"{name} cannot be unpacked, save the autoencoder again: {error}") from error


def _learned_from(each: Learned, tensors: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Float[Tensor, "*shape"]:
    """A learned tensor, in the dtype of the file or, if it is quantised, in float32."""
    places = None if each.entries is None else rows[str(each.rows)] >= 0
    if places is not None and int(places.sum()) != each.entries:
        raise StorageError(f"{each.name} and the rows it belongs to differ in length; save the autoencoder again.")
    if each.quantised is None:
        return _with_padding(tensors[each.name], places)
    integers = tensors[f"{each.name}.integers"]
    if each.quantised == "int4":
        integers = _unpack_pairs(integers, each.shape if each.entries is None else (each.entries,))
    return dequantise(_with_padding(integers, places), scales_from(tensors[f"{each.name}.scales"]))


def _held(each: Learned, tensor: Float[Tensor, "*shape"], places: Places | None) -> dict[str, Tensor]:
    """What the file holds of a learned tensor."""
    if each.quantised is None:
        return {each.name: _without_padding(convert(each.name, tensor, each.dtype, "cpu"), places)}
    _check_finite(each.name, tensor)
    try:
        integers, scales = quantise(tensor.detach().cpu(), BITS[each.quantised])
    except ExpanderError as error:
        raise StorageError(f"{each.name} does not fit {each.quantised}, save it in a float type: {error}") from error
    integers = _without_padding(integers, places)
    stored = _pack_pairs(integers) if each.quantised == "int4" else integers
    return {f"{each.name}.integers": stored, f"{each.name}.scales": scale_codes(scales)}


def _without_padding(values: Shaped[Tensor, "n d"], places: Places | None) -> Shaped[Tensor, "n d"] | Tensor:
    """All values [n, d], or those [entries] that there are."""
    return values if places is None else values[places]


def _with_padding(stored: Tensor, places: Places | None) -> Shaped[Tensor, "n d"]:
    """The values [n, d] again, with zeros where there are none."""
    if places is None:
        return stored
    return stored.new_zeros(places.shape).masked_scatter(places, stored)


def _pack_pairs(integers: Int8[Tensor, "*shape"]) -> UInt8[Tensor, " bytes"]:
    """Integers of four bits, two to a byte, the first in its low half; a last half without one is zero."""
    flat = integers.reshape(-1).view(torch.uint8) & 15
    pairs = torch.nn.functional.pad(flat, (0, len(flat) % 2)).reshape(-1, 2)
    return pairs[:, 0] | pairs[:, 1] << 4


def _unpack_pairs(packed: UInt8[Tensor, " bytes"], shape: tuple[int, ...]) -> Int8[Tensor, "*shape"]:
    """The integers of four bits that bytes hold."""
    halves = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)[: math.prod(shape)]
    return ((halves ^ 8).to(torch.int8) - 8).reshape(shape)
