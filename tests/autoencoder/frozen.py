"""The autoencoder that the folders under frozen_folders/ hold, as each schema version and kind of values wrote it."""

import torch

import expander_sae as xs

WIDTH = 12


def frozen_autoencoder():
    """A union of a dense, a recipe and a stored block, untied, every parameter a multiple of 1/16."""
    rows = [[0, 1, 2], [0, 1, 3], [0, 4, 11], [5, 6, 7], [0, 1, 10], [2, 8, 9], [0, 2, 11]]
    blocks = [
        xs.DenseDictionary(WIDTH, 4),
        xs.ExpanderDictionary(xs.Support.make("balanced", m=WIDTH, n=9, d=3, seed=3)),
        xs.ExpanderDictionary(xs.Support.from_rows(rows, WIDTH, "chosen")),
    ]
    provenance = {"model": "some/model", "metrics": {"fvu": 0.25}}
    sae = xs.SparseAutoencoder(xs.Union(blocks), xs.OMP(k=3), tied=False, latent_bias=True, provenance=provenance)
    with torch.no_grad():
        for number, parameter in enumerate(sae.parameters()):
            parameter.copy_(((torch.arange(parameter.numel()) * 37 + number) % 101 - 50).reshape(parameter.shape) / 16)
        sae.scale.fill_(0.75)
    return sae
