"""`expander finetune`: a trained dictionary learns what the language model's own predictions need."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from expander_sae.activations.texts.files import Part
from expander_sae.checks import AutoencoderFolder, Count
from expander_sae.cli.inputs import autoencoder_in, language_model_of
from expander_sae.console import terminal
from expander_sae.finetuning import FinetuneConfig, FinetuneRun, finetune


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune a trained dictionary so that the language model predicts with it in place what it predicts without.

    What is not said is as in training: the model, the hookpoint, and the text. Rows stay where they are.
    """

    path: tyro.conf.Positional[Path]
    """The folder of the autoencoder, which stays as it is."""
    out: AutoencoderFolder
    """The folder for the fine-tuned one, its metrics and the checkpoint."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")] = field(default_factory=FinetuneConfig)
    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub."""
    hookpoint: str | None = None
    """The module whose output is replaced; :input behind its name replaces what goes into it."""
    text: str | None = None
    """python, a .txt, .jsonl or .parquet file, a folder of them, or a data set's name."""
    part: Part = "train"
    """The part of the text: one document in twenty is held out."""
    column: str | None = None
    """The field or column that holds the text."""
    context: Count | None = None
    """Tokens that the model sees at once, at most."""
    bos: bool | None = None
    """Put the tokenizer's BOS token in front of every piece; it is passed through."""
    resume: bool = False
    """Go on from the checkpoint in the folder."""
    device: str | None = None
    """Where to run; by default the GPU if there is one."""
    progress: bool = True
    """Show a live line."""

    def run(self) -> None:
        """Fine-tune, then print how it went."""
        from expander_sae.evaluation import text_for

        console, saes = terminal(), {"The autoencoder": autoencoder_in(self.path)}
        text = text_for(
            saes, text=self.text, part=self.part, column=self.column, context=self.context, bos=self.bos
        )  # fmt: skip
        language_model = language_model_of(saes, self.model, self.device)
        run = finetune(
            saes["The autoencoder"], language_model, self.config, hookpoint=self.hookpoint, text=text, out=self.out,
            resume=self.resume, progress=self.progress,
        )  # fmt: skip
        console.print(_summary(run))
        console.print(f"Written to {self.out}.")


def _summary(run: FinetuneRun) -> str:
    """How the batches went in the beginning and in the end."""
    first, last = run.metrics[0], run.metrics[-1]
    numbers = [f"{label} {first[name]:.3f} to {last[name]:.3f}" for label, name in
               (("KL", "kl"), ("cross-entropy", "ce"), ("FVU", "fvu"))]  # fmt: skip
    return f"From the first batches to the last: {', '.join(numbers)}."
