"""An autoencoder of this library, as it is, inside a folder of SAELens: sparse, quantised if it was, under any coder.

SAELens casts every tensor of a folder to one float type as it loads it. So the weights are the bytes of the tensor file
of this library, one entry a byte: whole numbers to 255 survive a cast to any float. `cfg.json` holds our `config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import StorageError
from expander_sae.interop.foreign import Foreign
from expander_sae.interop.saelens import CONFIG, WEIGHTS, metadata_of

ARCHITECTURE = "expander"
"""What SAELens knows it by, once `expander_sae.interop.saelens_host` is imported."""
TENSOR_FILE = "tensor_file"
"""The name of the one tensor."""


def files_of(sae: SparseAutoencoder) -> dict[str, bytes | dict[str, Any]]:
    """The folder's files by name."""
    content, data = packed(sae)
    return {CONFIG: config_of(sae, content), WEIGHTS: safetensors.save({TENSOR_FILE: data})}


def read(folder: Foreign) -> SparseAutoencoder:
    """The autoencoder in the folder."""
    tensors = folder.tensors(WEIGHTS)
    folder.check_names(tensors, [TENSOR_FILE])
    return unpacked(folder.json(CONFIG).get("autoencoder", {}), tensors[TENSOR_FILE])


def config_of(sae: SparseAutoencoder, content: Mapping[str, Any]) -> dict[str, Any]:
    """What SAELens is told; `content` is our `config.json`."""
    return {
        "architecture": ARCHITECTURE,
        "d_in": sae.m,
        "d_sae": sae.n,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "autoencoder": dict(content),
        "metadata": metadata_of(sae.provenance),
    }


def packed(sae: SparseAutoencoder) -> tuple[dict[str, Any], Tensor]:
    """Our `config.json` and the bytes of our tensor file."""
    with TemporaryDirectory() as folder:
        sae.save(folder)
        content = json.loads((Path(folder) / "config.json").read_text())
        data = bytearray((Path(folder) / content["tensors"]["file"]).read_bytes())
    return content, torch.frombuffer(data, dtype=torch.uint8)


def unpacked(content: Mapping[str, Any], data: Tensor) -> SparseAutoencoder:
    """The autoencoder again, every check passed that a folder passes; the bytes may have become floats."""
    with TemporaryDirectory() as folder:
        try:
            name = content["tensors"]["file"]
        except (KeyError, TypeError) as error:
            raise StorageError("The cfg.json holds no autoencoder of expander-sae; export it again.") from error
        (Path(folder) / "config.json").write_text(json.dumps(content))
        (Path(folder) / Path(str(name)).name).write_bytes(data.to(torch.uint8).cpu().numpy().tobytes())
        return SparseAutoencoder.load(folder)
