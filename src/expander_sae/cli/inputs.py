"""What several commands are given: a folder of one autoencoder, the language model that it runs in, another coder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder, TopK
from expander_sae.coders.named import coder_named
from expander_sae.console import waiting
from expander_sae.errors import ExpanderError


def autoencoder_in(folder: Path) -> SparseAutoencoder:
    """The one autoencoder that this folder is or holds."""
    from expander_sae.evaluation import load_runs

    found = load_runs([folder])
    if len(found) > 1:
        raise ExpanderError(f"{folder} holds {len(found)} autoencoders; name the folder of one of them.")
    return next(iter(found.values()))


def language_model_of(
    saes: Mapping[str, SparseAutoencoder], name: str | None, device: str | None = None
) -> LanguageModel:
    """The model of this name, or the one that all autoencoders were trained with."""
    from expander_sae.activations.models import load_language_model, name_of
    from expander_sae.evaluation import trained_with

    if name is None:
        origin = {key: trained_with(saes, key) for key in ("model", "revision")}
        if origin["model"] is None:
            raise ExpanderError("The autoencoder does not say what model it was trained with; give --model.")
        name = name_of(origin)
    with waiting(f"loading {name}"):
        return load_language_model(name, device=device)


def store_for(folder: Path, sae: SparseAutoencoder) -> Store:
    """The store in a folder, if its activations are as wide as the autoencoder."""
    store = Store.open(folder)
    if store.width != sae.m:
        raise ExpanderError(f"{folder} has activations of width {store.width}, not {sae.m}.")
    return store


def usual_tokens(store: Store, count: int) -> Float[Tensor, "tokens m"]:
    """The first activations of a store, at most so many, without the massive ones."""
    x = store[: min(count, store.tokens)].activations.float()
    return x[torch.linalg.vector_norm(x, dim=1) <= store.massive_above]


def coder_asked_for(name: str | None, signed: bool, look: float | None = None) -> Coder | None:
    """The coder of this name; None if each autoencoder is to keep its own."""
    if name is None:
        for option, given in (("signed", signed), ("look", look is not None)):
            if given:
                raise ExpanderError(f"--{option} belongs to the coder that --coder names; give one.")
        return None
    coder = coder_named(name, signed)
    if look is None:
        return coder
    if not isinstance(coder, TopK):
        raise ExpanderError(f"--look is for topk, as in --coder topk:32, not for {name}.")
    return replace(coder, look=look)


def hookpoint_of(sae: SparseAutoencoder, name: str | None) -> str:
    """The hookpoint of this name, or the one that the autoencoder was trained at."""
    from expander_sae.evaluation import trained_with

    hookpoint = name or trained_with({"": sae}, "hookpoint")
    if hookpoint is None:
        raise ExpanderError("The autoencoder does not say where in the model it was trained; give --hookpoint.")
    return str(hookpoint)
