"""`expander quality`: what the features of dictionaries tell a reader."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from expander_sae.activations.texts.files import Part
from expander_sae.checks import Count, CountOrNone, PageFolder
from expander_sae.cli.inputs import autoencoder_in, coder_asked_for, language_model_of
from expander_sae.console import LiveLines, terminal
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.measure import QualityConfig

if TYPE_CHECKING:
    from expander_sae.evaluation.quality.results import Quality as Readability
    from expander_sae.evaluation.quality.session import Session

PAGE, ANSWERS = "quality.html", "judge.jsonl"
"""The page in the folder, and the answers of the judge."""


@dataclass(frozen=True)
class Quality:
    """Measure how readable the features of dictionaries are, beside raw coordinates and random contexts.

    What is not said is as in training: the model, the hookpoint, and the text, of which the held-out part is taken.
    Name a dense dictionary among the runs to have it beside the others.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `expander train` wrote, of one autoencoder or of several."""
    out: PageFolder | None = None
    """A folder for tables, pictures and the page. What was measured is kept there, and running it again goes on."""
    model: str | None = None
    """smollm2, the folder of a model, or a name on the Hugging Face hub."""
    hookpoint: str | None = None
    """The module whose output the dictionaries explain."""
    text: str | None = None
    """python, a .txt, .jsonl or .parquet file, a folder of them, or a data set's name."""
    part: Part = "held-out"
    """The part of the text: one document in twenty is held out."""
    column: str | None = None
    """The field or column that holds the text."""
    context: Count | None = None
    """Tokens that the model sees at once, at most."""
    bos: bool | None = None
    """Put the tokenizer's BOS token in front of every piece; it is not measured."""
    tokens: Count = 50_000
    """Tokens to measure on."""
    coder: str | None = None
    """Measure under this coder instead of each autoencoder's own: omp:32, mp:32, topk:16, fista:0.1, ..."""
    signed: bool = False
    """Let that coder use negative codes."""
    labels: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """A JSONL file of {"text": ..., "spans": [[begin, end, label], ...]} with labels for the documents of the text; may
    be given several times. Give it as --text too, with --part all."""
    sequences: CountOrNone = 0
    """Tasks of the package sae-probes (pip install --no-deps sae-probes) to draw: texts with a label each."""
    again: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """The folder of the same training from another seed, for the first run, then for the second, ...: which features
    are found again."""
    judge: str | None = None
    """The address of a language model that explains and rates features, as in http://localhost:8080/v1; the
    environment variable EXPANDER_JUDGE_KEY may hold its key."""
    judge_model: str = ""
    """What that model is called there."""
    judge_features: Count = 25
    """Features of every dictionary that it judges."""
    config: tyro.conf.OmitArgPrefixes[QualityConfig] = field(default_factory=QualityConfig)

    def run(self) -> None:
        """Measure, print the tables and write the report; then ask the judge, and write it again."""
        from expander_sae.evaluation.quality.judge.client import Judge

        if self.judge is None and (self.judge_model or self.judge_features != Quality.judge_features):
            raise ExpanderError("There is no judge without its address; give --judge, or leave its options off.")
        if self.out is not None:
            self._prepare(self.out)
        answers = None if self.out is None else self.out / ANSWERS
        judge = None if self.judge is None else Judge(self.judge, self.judge_model, answers)
        console = terminal()
        with LiveLines() as lines:
            session = self._session(lines.update)
            qualities = session.qualities()
        self._tell(session, qualities)
        if judge is None:
            return
        console.print(f"The judge is asked {session.costs(judge, self.judge_features)}.")
        with LiveLines() as lines:
            judged = session.judged(judge, self.judge_features, qualities, lines.update)
        self._tell(session, judged, only="What the judge says")

    def _prepare(self, folder: Path) -> None:
        """Refuse what would fail only after the work is done."""
        from expander_sae.reporting.page import check_installed

        check_installed()
        folder.mkdir(parents=True, exist_ok=True)

    def _session(self, report: Callable[[str, int, int], None]) -> Session:
        """What is asked for, with the model loaded and the text read."""
        from expander_sae.evaluation import load_runs, text_for
        from expander_sae.evaluation.quality.session import Plan, Session
        from expander_sae.evaluation.setting import Setting

        saes = load_runs(self.runs)
        if len(self.again) > len(saes):
            raise ExpanderError(
                f"There are {len(self.again)} other seeds for {len(saes)} dictionaries; give one for each at most."
            )
        again = dict(zip(saes, map(autoencoder_in, self.again), strict=False))
        coder = coder_asked_for(self.coder, self.signed)
        if coder is not None:
            saes, again = ({name: sae.with_coder(coder) for name, sae in each.items()} for each in (saes, again))
        text = text_for(
            saes, text=self.text, part=self.part, column=self.column, context=self.context, bos=self.bos
        )  # fmt: skip
        language_model = language_model_of(saes, self.model)
        saes, again = ({name: sae.to(language_model.device) for name, sae in each.items()} for each in (saes, again))
        setting = Setting.of(saes, language_model, self.hookpoint, text)
        plan = Plan(self.tokens, self.labels, self.sequences, config=self.config)
        return Session(saes, language_model, setting, plan, again=again, folder=self.out, report=report)

    def _tell(self, session: Session, qualities: Sequence[Readability], only: str | None = None) -> None:
        """Print the tables (or one of them), and write the report if there is a folder for it."""
        from expander_sae.files import replace_file
        from expander_sae.reporting.page import page_of
        from expander_sae.reporting.quality import report_of

        settings = {"tokens": self.tokens, "features": self.config.features, "seed": self.config.seed}
        commands = [shlex.join(["expander", "quality", *map(str, self.runs)])]
        report = report_of(
            qualities, setting=session.described(), settings=settings, commands=commands, drawn=self.out is not None
        )
        console = terminal()
        for heading, table in report.tables.items():
            if only in (None, heading):
                console.print(f"{heading}:")
                console.print(table.to_rich())
        if self.out is not None:
            report.write(self.out)
            replace_file(self.out / PAGE, page_of([report], report.title).encode())
            console.print(f"The page is {self.out / PAGE}.", soft_wrap=True)
