"""The folder of EleutherAI's sparsify, one for a hookpoint: `cfg.json` and `sae.safetensors`."""

from __future__ import annotations

import os
from typing import Any

from expander_sae.errors import ExpanderError
from expander_sae.files import to_bytes
from expander_sae.interop.foreign import Foreign, activations_of
from expander_sae.interop.plain import Plain

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def files_of(plain: Plain) -> dict[str, bytes | dict[str, Any]]:
    """The folder's files by name."""
    if plain.activation != "topk":
        raise ExpanderError(
            f"sparsify has TopK alone, not {plain.activation}; export to saelens, or with a coder that it has "
            "(--coder topk:K)."
        )
    config = {
        "activation": "topk",
        "expansion_factor": max(1, plain.n // plain.m),
        "normalize_decoder": False,
        "num_latents": plain.n,
        "k": plain.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": plain.m,
    }
    tensors = {
        "encoder.weight": plain.encoder,
        "encoder.bias": plain.latent_bias,
        "W_dec": plain.decoder,
        "b_dec": plain.bias,
    }
    return {CONFIG: config, WEIGHTS: to_bytes(tensors)}


def read(folder: Foreign) -> Plain:
    """What the folder holds."""
    config = folder.json(CONFIG)
    for name, value, what in (
        ("transcode", True, "is a transcoder, whose output is not its input"),
        ("skip_connection", True, "has a linear path beside its features"),
        ("activation", "groupmax", "takes the largest of each of k groups (groupmax)"),
    ):
        if config.get(name) == value:
            raise folder.error(f"{what}, which an expander-sae autoencoder cannot hold; import one with TopK")
    if not isinstance(config.get("k"), int):
        raise folder.error(f"has no whole number 'k' in its {CONFIG}")
    tensors = folder.tensors(WEIGHTS)
    folder.check_names(tensors, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    return Plain(
        encoder=tensors["encoder.weight"],
        latent_bias=tensors["encoder.bias"],
        decoder=tensors["W_dec"],
        bias=tensors["b_dec"],
        activation="topk",
        k=config["k"],
        # Folders are named by their hookpoints, which are names of modules as here.
        provenance=folder.provenance(
            "sparsify", config, activations_of(model=None, hookpoint=os.path.basename(os.path.realpath(folder.path)))
        ),
    )
