"""Writing an autoencoder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.storage.config import Config, check_dtype, dtype_name, encoder_name, places_of_values
from expander_sae.storage.dictionaries import record_of
from expander_sae.storage.folder import write_folder
from expander_sae.storage.rows import to_packed
from expander_sae.storage.tensors import check_finite, convert, to_bytes
from expander_sae.storage.values import Places, Quantised, check_quantised, to_quantised, without_padding


def save(
    sae: SparseAutoencoder,
    path: str | PathLike[str],
    dtype: torch.dtype | None = None,
    values: Quantised | None = None,
) -> None:
    """Write the folder `path`, replacing an autoencoder that is there in one step.

    `dtype` is the parameters' own unless given, or float16 beside quantised `values`.
    """
    parameters = _parameters(sae)
    if dtype is None:
        dtype = _own_dtype(parameters) if values is None else torch.float16
    config = _config(sae, dtype, values)
    content = config.to_json()
    tensors: dict[str, Tensor] = {}
    places = _places(sae.dictionary, config)
    for name, tensor in parameters.items():
        tensors |= _stored(name, tensor, config, places.get(name))
    tensors |= _stored_rows(sae.dictionary)
    write_folder(Path(path), content, to_bytes(tensors))


def _stored(name: str, tensor: Tensor, config: Config, places: Places | None) -> dict[str, Tensor]:
    """What the file holds of a learned tensor."""
    if not config.is_quantised(name):
        return {name: without_padding(convert(name, tensor, config.dtype, "cpu"), places)}
    check_finite(name, tensor)
    try:
        return to_quantised(name, tensor.detach().cpu(), config.values, places)
    except ExpanderError as error:
        raise StorageError(f"{name} does not fit {config.values}, save it in a float type: {error}") from error


def _config(sae: SparseAutoencoder, dtype: torch.dtype, values: Quantised | None) -> Config:
    check_dtype(dtype)
    if values is not None:
        check_quantised(values)
    record = record_of(sae.dictionary)
    if sae.untied_encoder is not None and record_of(sae.untied_encoder) != record:
        raise StorageError(
            "The encoder has another support than the dictionary, which a file cannot say; give both the same one."
        )
    scale, latent_bias = float(sae.scale), sae.latent_bias is not None
    kind = dtype_name(dtype) if values is None else values
    return Config(record, sae.coder, sae.tied, latent_bias, scale, dtype, kind, sae.provenance)


def _parameters(sae: SparseAutoencoder) -> dict[str, Tensor]:
    """Every learned tensor by the name it has in the file."""
    parameters: dict[str, Tensor] = dict(sae.dictionary.named_parameters(remove_duplicate=False))
    if sae.untied_encoder is not None:
        for name, tensor in sae.untied_encoder.named_parameters(remove_duplicate=False):
            parameters[encoder_name(name)] = tensor
    parameters["pre_bias"] = sae.pre_bias
    if sae.latent_bias is not None:
        parameters["latent_bias"] = sae.latent_bias
    named = {id(tensor) for tensor in parameters.values()}
    others = [name for name, tensor in sae.named_parameters() if id(tensor) not in named]
    if others:
        raise StorageError(f"A file has no place for the parameters {', '.join(others)}; remove them before saving.")
    return parameters


def _own_dtype(parameters: dict[str, Tensor]) -> torch.dtype:
    dtypes = {tensor.dtype for tensor in parameters.values()}
    if len(dtypes) > 1:
        names = ", ".join(sorted(map(dtype_name, dtypes)))
        raise StorageError(f"The parameters are of several dtypes ({names}); choose one, such as dtype=torch.float32.")
    return dtypes.pop()


def _places(dictionary: Dictionary, config: Config) -> dict[str, Places]:
    """Which values there are, by their names, where columns differ in length."""
    modules = dictionary.named_modules(remove_duplicate=False)
    rows = {
        f"{prefix}.rows".removeprefix("."): module.rows.cpu()
        for prefix, module in modules
        if isinstance(module, ExpanderDictionary)
    }
    return places_of_values(config.dictionary, rows)


def _stored_rows(dictionary: Dictionary) -> dict[str, Tensor]:
    """The rows that no recipe makes, by the names they have in the file."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in dictionary.named_modules(remove_duplicate=False):
        if isinstance(module, ExpanderDictionary) and module.support.is_stored:
            tensors |= to_packed(f"{prefix}.rows".removeprefix("."), module.support)
    return tensors
