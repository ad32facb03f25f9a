"""`expander eval`: what a dictionary loses, and what a language model loses by it."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from expander_sae.activations.texts.files import Part
from expander_sae.checks import Count, File, SomeShare
from expander_sae.cli.inputs import coder_asked_for, language_model_of
from expander_sae.console import LiveLines, terminal


@dataclass(frozen=True)
class Eval:
    """Measure autoencoders inside a language model: reconstruction, cross-entropy, and how sure the numbers are.

    What is not said is as in training: the model, the hookpoint, and the text, of which the held-out part is taken.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `expander train` wrote, of one autoencoder or of several."""
    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub."""
    hookpoint: str | None = None
    """The module whose output is replaced; :input behind its name replaces what goes into it."""
    text: str | None = None
    """python, a .txt, .jsonl or .parquet file, a folder of them, or a data set's name."""
    part: Part = "held-out"
    """The part of the text: one document in twenty is held out."""
    column: str | None = None
    """The field or column that holds the text."""
    context: Count | None = None
    """Tokens that the model sees at once, at most."""
    bos: bool | None = None
    """Put the tokenizer's BOS token in front of every piece; it is passed through."""
    tokens: Count = 50_000
    """Tokens to evaluate on."""
    coder: str | None = None
    """Measure under this coder instead of each autoencoder's own: omp:32, mp:32, topk:16, fista:0.1, ..."""
    signed: bool = False
    """Let that coder use negative codes."""
    look: SomeShare | None = None
    """Let that coder (topk) look at this share of the features only, in groups that its first tokens are like: nearly
    the same codes, of a million features and more in a fraction of the time."""
    reference: str | None = None
    """The autoencoder whose recovered loss the others retain a share of; by default the one dense dictionary with the
    n and k of a sparse one."""
    out: tyro.conf.UseAppendAction[tuple[File, ...]] = ()
    """Also write the results to this .json or .csv file; may be given several times."""

    def run(self) -> None:
        """Evaluate, print the table, write the files."""
        from expander_sae.evaluation import default_reference, evaluate, load_runs, text_for
        from expander_sae.evaluation.autoencoders import check_reference
        from expander_sae.evaluation.tables import as_table, check_writable, notes, write

        for path in self.out:
            check_writable(path)
        coder, saes, console = coder_asked_for(self.coder, self.signed, self.look), load_runs(self.runs), terminal()
        reference = default_reference(saes) if self.reference is None else self.reference
        check_reference(saes, reference)
        text = text_for(
            saes, text=self.text, part=self.part, column=self.column, context=self.context, bos=self.bos
        )  # fmt: skip
        language_model = language_model_of(saes, self.model)
        saes = {name: sae.to(language_model.device) for name, sae in saes.items()}
        with LiveLines("tokens") as lines:
            evaluations = evaluate(
                saes, language_model, hookpoint=self.hookpoint, text=text, tokens=self.tokens, reference=reference,
                coder=coder, report=lambda done: lines.update("evaluating", done, self.tokens),
            )  # fmt: skip
        console.print(as_table(evaluations))
        for note in notes(evaluations, reference):
            console.print(note)
        for path in self.out:
            write(evaluations, path)
            console.print(f"Written to {path}.")
