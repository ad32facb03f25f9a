"""`expander features`: what every feature of a dictionary fires on, in a database."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from expander_sae.activations.texts.files import Part
from expander_sae.checks import Count, DatabaseFolder, PageFolder
from expander_sae.cli.holding import hold
from expander_sae.cli.inputs import language_model_of
from expander_sae.console import LiveLines, terminal, waiting
from expander_sae.errors import ExpanderError
from expander_sae.features.collect import FeaturesConfig

if TYPE_CHECKING:
    from expander_sae.activations.models import LanguageModel
    from expander_sae.autoencoder import SparseAutoencoder
    from expander_sae.features import FeatureDatabase
    from expander_sae.features.source import Source


@dataclass(frozen=True)
class Features:
    """Look at every feature of autoencoders: where it fires, how often, with which others, and what it promotes.

    The database is the folder RUN/features. A killed command goes on where it was when it is run again. The text is
    that of the training unless another is named, or that of a store, which is read faster.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `expander train` wrote, of one autoencoder or of several."""
    store: Path | None = None
    """Take the activations of this store instead of running the model over a text."""
    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub; that of the training by default."""
    hookpoint: str | None = None
    """The module whose activations are looked at; that of the training by default."""
    text: str | None = None
    """python, a .txt, .jsonl or .parquet file, a folder of them, or a data set's name."""
    part: Part = "train"
    """The part of the text: one document in twenty is held out."""
    column: str | None = None
    """The field or column that holds the text."""
    context: Count | None = None
    """Tokens that the model sees at once, at most."""
    bos: bool | None = None
    """Put the tokenizer's BOS token in front of every piece."""
    out: DatabaseFolder | None = None
    """The folder of the database, of one autoencoder."""
    neuronpedia: PageFolder | None = None
    """Also write what Neuronpedia imports to a folder of the model inside this one."""
    delphi: PageFolder | None = None
    """Also write the cache that delphi explains features from into this folder."""
    config: tyro.conf.OmitArgPrefixes[FeaturesConfig] = field(default_factory=FeaturesConfig)

    def run(self) -> None:
        """Make the databases, or finish them, and say what is in them."""
        from expander_sae.autoencoder import SparseAutoencoder
        from expander_sae.evaluation import run_folders
        from expander_sae.features import collect_all

        folders, console = run_folders(self.runs), terminal()
        if self.out is not None and len(folders) > 1:
            raise ExpanderError(f"--out names the folder of one database, but these are {len(folders)} autoencoders.")
        for folder in folders.values():
            hold(self.out or folder / "features")
        saes = {name: SparseAutoencoder.load(folder) for name, folder in folders.items()}
        language_model, source = self._source(saes)
        jobs = {
            name: (sae.to(language_model.device), self.out or folders[name] / "features") for name, sae in saes.items()
        }
        with LiveLines("tokens") as lines:
            databases = collect_all(
                jobs, source, language_model=language_model, config=self.config, report=lines.update
            )  # fmt: skip
        for database in databases.values():
            console.print(_sentence(database), soft_wrap=True)
            self._publish(database, language_model)

    def _source(self, saes: dict[str, "SparseAutoencoder"]) -> tuple["LanguageModel", "Source"]:
        """The model, and where activations come from."""
        from expander_sae.activations.models import load_language_model, name_of
        from expander_sae.activations.store import Store
        from expander_sae.evaluation import text_for
        from expander_sae.evaluation.setting import Setting
        from expander_sae.features.source import ReadText, StoredText

        texts = (self.hookpoint, self.text, self.column, self.context, self.bos)
        if self.store is not None:
            if any(each is not None for each in texts):
                raise ExpanderError("A store has its own text and hookpoint; leave --store out or the others.")
            store = Store.open(self.store)
            name = self.model or name_of(store.origin)
            with waiting(f"loading {name}"):
                return load_language_model(name), StoredText(store, min(self.config.tokens, store.tokens))
        language_model = language_model_of(saes, self.model)
        text = text_for(
            saes, text=self.text, part=self.part, column=self.column, context=self.context, bos=self.bos
        )  # fmt: skip
        setting = Setting.of(saes, language_model, self.hookpoint, text)
        return language_model, ReadText.of(
            language_model, setting.hookpoint, setting.text, self.config.tokens, setting.massive_above
        )

    def _publish(self, database: "FeatureDatabase", language_model: "LanguageModel") -> None:
        """The same in the formats of others."""
        from expander_sae.interop.delphi import write_delphi
        from expander_sae.interop.neuronpedia import write_neuronpedia

        console = terminal()
        if self.neuronpedia is not None:
            folder = write_neuronpedia(database, self.neuronpedia)
            console.print(f"For Neuronpedia: {folder}.", soft_wrap=True)
        if self.delphi is not None:
            folder = write_delphi(database, self.delphi)
            console.print(f"For delphi: {folder}.", soft_wrap=True)


def _sentence(database: "FeatureDatabase") -> str:
    """What was found, in short."""
    info = database.info
    return (
        f"{info.name}: {info.alive:,} of {info.n:,} features fire on 10 tokens or more, {info.rare:,} on fewer, "
        f"{info.dead:,} never; {info.tokens:,} tokens of {info.documents:,} documents, {info.massive:,} massive ones "
        f"left out. In {database.path}."
    )
