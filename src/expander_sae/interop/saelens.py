"""The folder of SAELens: `cfg.json` and `sae_weights.safetensors`, and `SAE.load_from_disk` of its version 6."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.files import to_bytes
from expander_sae.interop.foreign import Foreign, activations_of, hookpoint_of
from expander_sae.interop.plain import Activation, Plain
from expander_sae.version import __version__

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"
"""The version that the files are tested against; without one SAELens takes a file for a much older one."""
_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


def files_of(plain: Plain) -> dict[str, bytes | dict[str, Any]]:
    """The folder's files by name."""
    tensors = {
        "W_enc": plain.encoder.T,
        "W_dec": plain.decoder,
        "b_enc": plain.latent_bias,
        "b_dec": plain.bias,
    }
    own: dict[str, Any] = {}
    if plain.activation == "jumprelu":
        own["architecture"] = "jumprelu"
        tensors["threshold"] = torch.zeros_like(plain.latent_bias) if plain.thresholds is None else plain.thresholds
    elif plain.activation == "matching_pursuit":
        own = {"residual_threshold": 0.0, "max_iterations": plain.k, "stop_on_duplicate_support": False}
        del tensors["b_enc"], tensors["W_enc"]
    else:
        # Column norms decide what the k largest are, so they stay where they are.
        own = {"k": plain.k, "rescale_acts_by_decoder_norm": False}
    config = {
        "architecture": plain.activation,
        "d_in": plain.m,
        "d_sae": plain.n,
        "dtype": str(plain.decoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **own,
        "metadata": metadata_of(plain.provenance),
    }
    return {CONFIG: config, WEIGHTS: to_bytes(tensors)}


def metadata_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What SAELens wants to know about where activations come from, and what no other library does as this one."""
    origin = provenance.get("activations", {})
    hookpoint = str(origin.get("hookpoint", ""))
    layer = re.fullmatch(r"(.*\.)?(\d+)(:input)?", hookpoint)
    name = f"blocks.{layer[2]}.hook_resid_{'pre' if layer[3] else 'post'}" if layer else hookpoint
    found = {
        "sae_lens_version": VERSION,
        "sae_lens_training_version": None,
        "model_name": origin.get("model"),
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": name or None,
        "hf_hook_name": hookpoint or None,
        "hook_head_index": None,
        "context_size": origin.get("context"),
        "prepend_bos": origin.get("bos"),
        "dataset_path": origin.get("text"),
        "expander_sae_version": __version__,
    }
    if origin.get("massive_above") is not None:
        found["massive_above"] = origin["massive_above"]
        found["massive_note"] = "trained without tokens of a larger norm, which expander-sae passes through unchanged"
    return found


def read(folder: Foreign) -> Plain:
    """What the folder holds."""
    config = folder.json(CONFIG)
    architecture = str(config.get("architecture", "standard"))
    if config.get("activation_fn_str") == "topk" and architecture == "standard":
        architecture, config["k"] = "topk", config.get("activation_fn_kwargs", {}).get("k")
    if architecture not in _READERS:
        raise folder.error(
            f"is of the architecture {architecture!r}, which an expander-sae autoencoder cannot hold; "
            f"it can hold {', '.join(_READERS)}"
        )
    if config.get("normalize_activations", "none") not in ("none", False, "expected_average_only_in"):
        raise folder.error(
            f"normalises every token in its own way ({config['normalize_activations']}), which an expander-sae "
            "autoencoder does not; import one that was trained on activations as they are"
        )
    if config.get("reshape_activations", "none") != "none":
        raise folder.error("is for the heads of an attention layer, which is not one vector a token")
    tensors = folder.tensors(WEIGHTS)
    found = _READERS[architecture](folder, config, tensors)
    if not config.get("apply_b_dec_to_input", True) and architecture != "matching_pursuit":
        found = found.without_subtracted_bias()
    return found.with_provenance(_provenance(folder, config))


def _provenance(folder: Foreign, config: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {**config, **(config.get("metadata") or {})}
    hook = str(metadata.get("hook_name") or metadata.get("hook_point") or "")
    layer = _HOOK.fullmatch(hook)
    hookpoint = hookpoint_of(int(layer[1]), at_input=layer[2] == "pre") if layer else metadata.get("hf_hook_name")
    return folder.provenance(
        "saelens",
        config,
        activations_of(
            model=metadata.get("model_name"),
            hookpoint=hookpoint,
            context=metadata.get("context_size"),
            bos=metadata.get("prepend_bos"),
        ),
    )


def _read_topk(folder: Foreign, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("W_enc", "b_enc", "W_dec", "b_dec"))
    k = config.get("k")
    if not isinstance(k, int):
        raise folder.error(f"has no whole number 'k' in its {CONFIG}")
    activation: Activation = "abstopk" if config["architecture"] == "abstopk" else "topk"
    return _rescaled(Plain.of_matrices(tensors, activation, k=k), config)


def _read_jumprelu(folder: Foreign, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("W_enc", "b_enc", "W_dec", "b_dec"), ("threshold", "topk_threshold"))
    thresholds = tensors.get("threshold")
    if "topk_threshold" in tensors:  # a checkpoint of its training: one for all
        thresholds = torch.full_like(tensors["b_enc"], float(tensors["topk_threshold"]))
    # What is below zero does not fire whatever its threshold.
    above = None if thresholds is None else thresholds.clamp(min=0)
    return _rescaled(Plain.of_matrices(tensors, "jumprelu", thresholds=above), config)


def _read_gated(folder: Foreign, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"))
    return Plain.of_gated(
        encoder=tensors["W_enc"].T,
        gate_bias=tensors["b_gate"],
        magnitude_bias=tensors["b_mag"],
        log_magnitude=tensors["r_mag"],
        decoder=tensors["W_dec"],
        bias=tensors["b_dec"],
    )


def _read_pursuit(folder: Foreign, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Plain:
    folder.check_names(tensors, ("W_dec", "b_dec"), ("W_enc",))
    if config.get("residual_threshold", 1e-2) > 0 or config.get("stop_on_duplicate_support", True):
        raise folder.error(
            "stops its pursuit by rules that MatchingPursuit does not have; set residual_threshold to 0 and "
            f"stop_on_duplicate_support to false in {CONFIG} to import it with max_iterations steps for every token"
        )
    norms = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
    if (norms - 1).abs().max() > 1e-3:
        raise folder.error("has columns that are not of unit norm, which its pursuit needs")
    unit = nn.functional.normalize(tensors["W_dec"], dim=1)
    k = config.get("max_iterations") or unit.shape[1]
    # Where its bias is not subtracted, it is not added either.
    bias = tensors["b_dec"] if config.get("apply_b_dec_to_input", True) else torch.zeros_like(tensors["b_dec"])
    return Plain(unit, torch.zeros(len(unit)), unit, bias, "matching_pursuit", k)


def _rescaled(plain: Plain, config: Mapping[str, Any]) -> Plain:
    """With the norms of the decoder folded into the encoder, where SAELens does that on the fly."""
    return plain.with_unit_columns() if config.get("rescale_acts_by_decoder_norm") else plain


_READERS: dict[str, Callable[[Foreign, Mapping[str, Any], Mapping[str, Tensor]], Plain]] = {
    "topk": _read_topk,
    "abstopk": _read_topk,
    "jumprelu": _read_jumprelu,
    "standard": _read_jumprelu,
    "batchtopk": _read_jumprelu,
    "matryoshka_batchtopk": _read_jumprelu,
    "gated": _read_gated,
    "matching_pursuit": _read_pursuit,
}
