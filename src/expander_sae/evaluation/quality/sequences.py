"""Texts with one label each, as the wheel of `sae-probes` carries them, and features at their last tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import csc_array
from torch import Tensor

from expander_sae.activations.hookpoints import Hookpoint, read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.errors import ExpanderError, require
from expander_sae.evaluation.quality.probes import Probe, ProbeTask
from expander_sae.evaluation.text import TOKENS_PER_BATCH
from expander_sae.files import checksum, read_checked_tensors, write_checked_tensors

SAE_PROBES = "sae-probes"
"""The suite, and the package that holds it."""
LONGEST = 128
"""Tokens of a text that are read: its last ones."""


@dataclass(frozen=True)
class SequenceTask:
    """Texts of two kinds."""

    name: str
    texts: list[str]
    truth: NDArray[np.bool_]
    """Which of them are of the kind whose value comes last in order."""


def sae_probes_tasks(wanted: int, texts: int, seed: int, folder: Path | None = None) -> list[SequenceTask]:
    """At most so many of the tasks with two kinds of texts, drawn at random, with as many texts of either kind.

    The files are those of the installed package, which is not imported: it would want other libraries.
    """
    folder = _installed() if folder is None else folder
    found = [task for path in sorted(folder.glob("*.csv*")) if (task := _read(path, texts, seed)) is not None]
    if not found:
        raise ExpanderError(f"{folder} holds no texts of two kinds; install sae-probes 0.4 or later.")
    chosen = np.random.default_rng(seed).permutation(len(found))[:wanted]
    return [found[number] for number in sorted(chosen.tolist())]


def _installed() -> Path:
    spec = find_spec("sae_probes")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ExpanderError(
            "The suite sae-probes is in a package that is not installed; run pip install --no-deps sae-probes, "
            "which is 45 MB, or leave --sequences out."
        )
    return Path(places[0]) / "data" / "cleaned_data"


def _read(path: Path, texts: int, seed: int) -> SequenceTask | None:
    """The task of a file; None if its texts are not of two kinds, or too few."""
    require("pyarrow")
    import pyarrow
    from pyarrow import csv

    try:
        table = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
    except (pyarrow.ArrowException, OSError) as error:
        raise ExpanderError(f"{path} cannot be read ({error}); install sae-probes anew.") from error
    if not {"prompt", "target"} <= set(table.column_names):
        return None
    prompts = [None if value is None else str(value) for value in table["prompt"].to_pylist()]
    targets = table["target"].to_pylist()
    kinds = sorted(set(targets) - {None}, key=str)
    if len(kinds) != 2:
        return None
    generator, each = np.random.default_rng(seed), texts // 2
    chosen = list[int]()
    for kind in kinds:
        members = [number for number, value in enumerate(targets) if value == kind and prompts[number]]
        chosen += generator.permutation(members)[:each].tolist()
    truth = np.array([targets[number] == kinds[1] for number in chosen])
    if min(truth.sum(), (~truth).sum()) < each:
        return None
    return SequenceTask(path.name.split(".")[0], [str(prompts[number]) for number in chosen], truth)


def last_tokens(
    language_model: LanguageModel,
    hookpoint: Hookpoint,
    texts: Sequence[str],
    report: Callable[[int], None] = lambda done: None,
) -> Float[Tensor, "texts m"]:
    """The activation at the last token of every text."""
    encoded = language_model.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    pieces = [ids[-LONGEST:] or [0] for ids in encoded]
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
    found: dict[int, Tensor] = {}
    while len(found) < len(pieces):
        start = len(found)
        longest = len(pieces[order[min(start + 64, len(order)) - 1]])
        batch = order[start : start + max(1, min(64, TOKENS_PER_BATCH // longest))]
        ids = torch.zeros(len(batch), max(len(pieces[number]) for number in batch), dtype=torch.int64)
        for row, number in enumerate(batch):
            ids[row, : len(pieces[number])] = torch.tensor(pieces[number])
        x = read_activations(language_model.model, [hookpoint], ids.to(language_model.device))[hookpoint]
        for row, number in enumerate(batch):
            found[number] = x[row, len(pieces[number]) - 1].float().cpu()
        report(len(found))
    return torch.stack([found[number] for number in range(len(pieces))])


@dataclass(frozen=True)
class Sequences:
    """Tasks with the activations at the last tokens of their texts."""

    tasks: list[SequenceTask]
    activations: list[Float[Tensor, "texts m"]]

    @classmethod
    def read(
        cls,
        language_model: LanguageModel,
        hookpoint: Hookpoint,
        tasks: list[SequenceTask],
        path: Path | None = None,
        report: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> Sequences:
        """Read all texts, or take what an earlier run left in the file."""
        origin = checksum(
            {
                "model": [language_model.name, language_model.revision],
                "hookpoint": str(hookpoint),
                "texts": [task.texts for task in tasks],
            }
        )
        if path is not None and path.exists():
            with suppress(ValueError):  # what was damaged is read again
                tensors, about = read_checked_tensors(path)
                if about == {"origin": origin}:
                    return cls(tasks, [tensors[task.name] for task in tasks])
        found = dict[str, Tensor]()
        for number, task in enumerate(tasks):
            report("reading labelled texts", number, len(tasks))
            found[task.name] = last_tokens(language_model, hookpoint, task.texts)
        report("reading labelled texts", len(tasks), len(tasks))
        if path is not None:
            write_checked_tensors(path, found, {"origin": origin})
        return cls(tasks, list(found.values()))

    def probes(self, fire: Callable[[Float[Tensor, "texts m"]], csc_array], seed: int) -> list[Probe]:
        """A probe for every task, learned on one half of its texts and tried on the other."""
        found = []
        for task, x in zip(self.tasks, self.activations, strict=True):
            number = np.arange(len(x))
            learn = np.random.default_rng(seed).permutation(number) % 2 == 0
            probe = ProbeTask(learn, number).probes(fire(x), {task.name: task.truth})[task.name]
            if probe is not None:
                found.append(probe)
        return found
