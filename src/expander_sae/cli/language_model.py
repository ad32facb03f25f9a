"""The language model that a command runs autoencoders in."""

from collections.abc import Mapping

from rich.console import Console

from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError


def language_model_of(
    saes: Mapping[str, SparseAutoencoder], name: str | None, console: Console, device: str | None = None
) -> LanguageModel:
    """The model of this name, or the one that all autoencoders were trained with."""
    from expander_sae.activations.models import load_language_model, name_of
    from expander_sae.evaluation import trained_with

    if name is None:
        origin = {key: trained_with(saes, key) for key in ("model", "revision")}
        if origin["model"] is None:
            raise ExpanderError("The autoencoder does not say what model it was trained with; give --model.")
        name = name_of(origin)
    with console.status(f"loading {name}"):
        return load_language_model(name, device=device)
