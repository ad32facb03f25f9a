"""Single `.pt` files: those of OpenAI's sparse_autoencoder, and those of the code of the Expander SAE paper."""

from __future__ import annotations

from typing import Any

from torch import nn

from expander_sae.interop.foreign import Foreign
from expander_sae.interop.plain import Plain

_OPENAI = ("pre_bias", "latent_bias", "encoder.weight", "decoder.weight", "activation")
_PAPER = ("mask", "decoder_vals", "b_dec", "b_enc")


def read(file: Foreign, k: int | None) -> Plain:
    """What the file holds; `k` where it does not say how many features a token has."""
    content = file.checkpoint()
    content = content.get("model_state_dict", content)
    if set(_PAPER) <= set(content):
        return _read_paper(file, content, k)
    if set(_OPENAI[:4]) <= set(content):
        return _read_openai(file, content)
    raise file.error(
        f"holds {', '.join(sorted(map(str, content)))}; a .pt file that can be imported holds {', '.join(_OPENAI)} "
        f"(OpenAI) or {', '.join(_PAPER)} (the Expander SAE paper)"
    )


def _read_openai(file: Foreign, content: dict[str, Any]) -> Plain:
    activation = content.get("activation")
    if activation != "ReLU":
        raise file.error(
            f"has the activation {activation}, with which OpenAI's code standardises every token by itself, which an "
            "expander-sae autoencoder does not; import one with ReLU"
        )
    return Plain(
        encoder=content["encoder.weight"],
        latent_bias=content["latent_bias"],
        decoder=content["decoder.weight"].T,
        bias=content["pre_bias"],
        activation="jumprelu",
        provenance=file.provenance("openai", {}, {}),
    )


def _read_paper(file: Foreign, content: dict[str, Any], k: int | None) -> Plain:
    """Tied, with unit columns; the k largest scores count, whatever their sign."""
    if k is None:
        raise file.error("does not say how many features a token has; give --k")
    columns = nn.functional.normalize((content["mask"] * content["decoder_vals"]).T, dim=1)
    if not columns.any(dim=1).all():
        raise file.error("has columns without any value")
    return Plain(
        encoder=columns,
        latent_bias=content["b_enc"],
        decoder=columns,
        bias=content["b_dec"],
        activation="topk",
        k=k,
        provenance=file.provenance("expander-sae paper", {"k": k}, {}),
    )
