"""The folder of dictionary_learning: `config.json` about the training, and `ae.pt`, a pickled state dict."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.interop.foreign import Foreign, activations_of, hookpoint_of
from expander_sae.interop.plain import Plain

CONFIG, WEIGHTS = "config.json", "ae.pt"


def files_of(plain: Plain) -> dict[str, bytes | dict[str, Any]]:
    """The folder's files by name."""
    if plain.activation == "topk":
        kind, tensors = "AutoEncoderTopK", _topk_tensors(plain)
    elif plain.activation == "jumprelu":
        kind, tensors = "JumpReluAutoEncoder", _jumprelu_tensors(plain)
    else:
        raise ExpanderError(
            f"dictionary_learning has TopK and JumpReLU, not {plain.activation}; export to saelens, or with a coder "
            "that it has (--coder topk:K)."
        )
    origin = plain.provenance.get("activations", {})
    hookpoint = str(origin.get("hookpoint", ""))
    layer = re.search(r"\d+", hookpoint)
    trainer = {
        "dict_class": kind,
        "activation_dim": plain.m,
        "dict_size": plain.n,
        "k": plain.k,
        "device": "cpu",
        "layer": int(layer[0]) if layer else None,
        "lm_name": origin.get("model"),
        "submodule_name": hookpoint or None,
    }
    buffer = {"d_submodule": plain.m, "io": "out", "ctx_len": origin.get("context")}
    content = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, content)
    return {CONFIG: {"trainer": trainer, "buffer": buffer}, WEIGHTS: content.getvalue()}


def _topk_tensors(plain: Plain) -> dict[str, Tensor]:
    return {
        "encoder.weight": plain.encoder,
        "encoder.bias": plain.latent_bias,
        "decoder.weight": plain.decoder.T,
        "b_dec": plain.bias,
        "k": torch.tensor(plain.k, dtype=torch.int),
        "threshold": torch.tensor(-1.0),
    }


def _jumprelu_tensors(plain: Plain) -> dict[str, Tensor]:
    # The bias of the decoder is not subtracted from the input there.
    return {
        "W_enc": plain.encoder.T,
        "b_enc": plain.latent_bias - plain.encoder @ plain.bias,
        "W_dec": plain.decoder,
        "b_dec": plain.bias,
        "threshold": torch.zeros_like(plain.latent_bias) if plain.thresholds is None else plain.thresholds,
    }


def read(folder: Foreign) -> Plain:
    """What the folder holds."""
    config = folder.json(CONFIG)
    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or "dict_class" not in trainer:
        raise folder.error(f"has a {CONFIG} that names no dict_class of dictionary_learning")
    kind = str(trainer["dict_class"])
    if kind not in _READERS:
        raise folder.error(
            f"is a {kind}, which an expander-sae autoencoder cannot hold; it can hold {', '.join(_READERS)}"
        )
    found = _READERS[kind](folder, folder.checkpoint(WEIGHTS))
    layer, module = trainer.get("layer"), trainer.get("submodule_name")
    hookpoint = module
    if isinstance(layer, int) and (module is None or "resid" in str(module)):
        hookpoint = hookpoint_of(layer)
    context = (config.get("buffer") or {}).get("ctx_len")
    activations = activations_of(model=trainer.get("lm_name"), hookpoint=hookpoint, context=context)
    return found.with_provenance(folder.provenance("dictionary_learning", config, activations))


def _read_linear(folder: Foreign, tensors: Mapping[str, Tensor]) -> Plain:
    """A ReLU autoencoder, with the unit columns that `load_dictionary` gives it."""
    folder.check_names(tensors, ("encoder.weight", "encoder.bias", "decoder.weight", "bias"))
    return Plain.of_layers(tensors, "jumprelu", bias="bias").with_unit_columns()


def _read_gated(folder: Foreign, tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("encoder.weight", "decoder.weight", "decoder_bias", "gate_bias", "mag_bias", "r_mag"))
    return Plain.of_gated(
        encoder=tensors["encoder.weight"],
        gate_bias=tensors["gate_bias"],
        magnitude_bias=tensors["mag_bias"],
        log_magnitude=tensors["r_mag"],
        decoder=tensors["decoder.weight"].T,
        bias=tensors["decoder_bias"],
    )


def _read_jumprelu(folder: Foreign, tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"))
    plain = Plain.of_matrices(tensors, "jumprelu", thresholds=tensors["threshold"].clamp(min=0))
    return plain.without_subtracted_bias()


def _read_topk(folder: Foreign, tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k"), ("threshold",))
    return Plain.of_layers(tensors, "topk", k=int(tensors["k"]))


def _read_batch_topk(folder: Foreign, tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "threshold"), ("k",))
    return Plain.of_layers(tensors, "jumprelu", thresholds=_one_for_all(tensors))


def _read_matryoshka(folder: Foreign, tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"), ("k", "group_sizes"))
    return Plain.of_matrices(tensors, "jumprelu", thresholds=_one_for_all(tensors))


def _one_for_all(tensors: Mapping[str, Tensor]) -> Tensor:
    """The threshold of every feature; one that was never set is below zero and lets every positive score through."""
    bias = tensors["b_enc"] if "b_enc" in tensors else tensors["encoder.bias"]
    return torch.full_like(bias, max(0.0, float(tensors["threshold"])))


_READERS: dict[str, Callable[[Foreign, Mapping[str, Tensor]], Plain]] = {
    "AutoEncoder": _read_linear,
    "GatedAutoEncoder": _read_gated,
    "JumpReluAutoEncoder": _read_jumprelu,
    "AutoEncoderTopK": _read_topk,
    "BatchTopKSAE": _read_batch_topk,
    "MatryoshkaBatchTopKSAE": _read_matryoshka,
}
