"""`expander grow`: many features out of a dense dictionary, whose columns become their atoms."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import AutoencoderFolder, Count, Seed, Share
from expander_sae.cli.inputs import store_for, usual_tokens
from expander_sae.console import terminal, waiting
from expander_sae.means import check_memory
from expander_sae.training import check_growable, grow


@dataclass(frozen=True)
class Grow:
    """Grow a dense dictionary to many more features: its columns stay as atoms, and clusters of tokens become mixtures
    of a few of them.

    Needs no gradient. What each new feature adds is a first guess: `expander train --start OUT --no-tied --hold-encoder
    --coder topk` finds it.
    """

    path: tyro.conf.Positional[Path]
    """The folder of the dense autoencoder, which stays as it is."""
    store: tyro.conf.Positional[Path]
    """The folder of a store of activations, such as the one it was trained on."""
    out: AutoencoderFolder
    """The folder of the larger one."""
    n: Count
    """Features, the old ones among them."""
    d: Count = 8
    """Atoms per mixture, at most."""
    tokens: Count = 600_000
    """Tokens that clusters are made of, from the start of the store; at least two for each cluster."""
    fires: Share = 0.6
    """Share of its cluster's tokens that a feature fires on; if these are fewer than 48 of 600,000, it fires on tokens
    around its cluster too. More of it gives the new features more of a token's codes: they mean more, and the whole
    explains less."""
    seed: Seed = 0
    """Of the clusters' first centres."""

    def run(self) -> None:
        """Grow, write, and say what there is."""
        sae = SparseAutoencoder.load(self.path)
        check_growable(sae, self.n, self.d)
        store = store_for(self.store, sae)
        tokens = min(self.tokens, store.tokens)
        check_memory("Clustering", 16.0 * tokens * sae.m, instead="give fewer tokens")
        console = terminal()
        with waiting(f"making {self.n - sae.n:,} clusters of {tokens:,} tokens", console.is_terminal):
            grown = grow(sae, usual_tokens(store, tokens), self.n, self.d, self.fires, self.seed)
        grown.save(self.out)
        console.print(
            f"{grown.n:,} features, {sae.n:,} of them atoms: {grown.learned_values:,} values, where dense columns of "
            f"their own would take {grown.n * sae.m:,}."
        )
        console.print(f"Written to {self.out}.")
