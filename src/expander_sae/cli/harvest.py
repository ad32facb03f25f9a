"""`expander harvest`: activations of a language model, on disk."""

from dataclasses import dataclass, field

import tyro
from rich.filesize import decimal

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import Precision
from expander_sae.activations.store import Store
from expander_sae.activations.store.shards import TOKENS_PER_SHARD
from expander_sae.checks import Count, StoreFolder
from expander_sae.console import LiveLines, terminal, waiting
from expander_sae.distribution import joined


@dataclass(frozen=True)
class Harvest:
    """Run a language model over text and keep its activations; run it again to go on after a kill.

    With `torchrun --nproc-per-node N -m -- expander_sae harvest ...` the processes share the model's work (the two
    dashes keep torchrun from reading the options that follow).
    """

    model: tyro.conf.Positional[str]
    """smollm2, the folder of a model, or a name on the Hugging Face hub (name@revision pins it)."""
    out: StoreFolder
    """The folder of the store; with several hookpoints, of a store for each."""
    hookpoint: tuple[str, ...] = ("layers.12",)
    """Modules to read, as patterns over their names; :input behind a name reads what goes into the module."""
    layer: tuple[int, ...] = ()
    """Layers to read, by number, in place of --hookpoint: what comes out of them, whatever the model calls them."""
    tokens: Count = 600_000
    """Tokens to keep."""
    dtype: str | None = None
    """How activations are stored: float16, or bfloat16, which is coarser but holds activations of any size; by default
    whichever the model's first activations need."""
    precision: Precision = "float32"
    """In which arithmetic the language model runs. bfloat16 reads 1.8 times as many tokens a second where the processor
    multiplies in it, and is off by 0.0003 of the activations' variance (smollm2); elsewhere it is as right, but slower
    than float32."""
    tokens_per_shard: Count = TOKENS_PER_SHARD
    """Tokens of a file; a killed harvest loses the file that was not finished."""
    text: tyro.conf.OmitArgPrefixes[TextConfig] = field(default_factory=TextConfig)

    def run(self) -> None:
        """Say what will be written, write it, say what it is."""
        import torch

        from expander_sae.activations.harvest import harvest, plan_harvest
        from expander_sae.activations.massive import MassiveTokens
        from expander_sae.activations.models import load_language_model
        from expander_sae.activations.soundness import soundness

        with joined() as group:
            console = terminal(quiet=not group.writes)
            with waiting(f"loading {self.model}", group.writes):
                language_model = load_language_model(self.model, dtype=getattr(torch, self.precision))
            hookpoints = [f"layers.{number}" for number in self.layer] or list(self.hookpoint)
            plan = plan_harvest(language_model, hookpoints, self.tokens, self.out, self.dtype)
            if group.writes and (warning := soundness(language_model, self.text).warning):
                console.print(warning, style="bold red", soft_wrap=True)
            names = ", ".join(str(hookpoint) for hookpoint in plan.hookpoints)
            console.print(f"{self.tokens:,} tokens at {names}: {decimal(plan.bytes)} in {self.out}.", soft_wrap=True)
            with LiveLines("tokens", shown=group.writes, kept=True) as lines:
                stores = harvest(
                    language_model, hookpoints, tokens=self.tokens, out=self.out, text=self.text,
                    dtype=self.dtype, tokens_per_shard=self.tokens_per_shard,
                    report=lambda stored: lines.update("harvest", stored, self.tokens),
                )  # fmt: skip
            for name, store in stores.items():
                massive = MassiveTokens.of(store).described(language_model.tokenizer) if group.writes else ""
                console.print(self._sentence(name, store, massive), markup=False)

    def _sentence(self, name: str, store: Store, massive: str) -> str:
        """What was harvested at a hookpoint."""
        short = "" if store.tokens == self.tokens else " (the text has no more)"
        return (
            f"{name}: {store.tokens:,} tokens{short} of {store.documents:,} documents, width {store.width}, "
            f"{str(store.dtype).removeprefix('torch.')}, mean norm {store.norms.mean:.1f}, "
            f"{massive}."
        )
