"""Tokens a second of a harvest, from text to disk, against the bare forward pass cut off behind the same layer.

`python -m benchmarks.harvest --text prose.jsonl` measures it in float32 and in bfloat16, interleaved in one process,
and what bfloat16 does to the activations. With `--clock processor` seconds are those that all threads of this process
compute in: other work on the machine does not count then, and what a harvest does beside the model does.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from expander_sae.activations.harvest import TextConfig, harvest, settled_text, text_batches
from expander_sae.activations.models import SMOLLM2, LanguageModel, Precision, load_language_model
from expander_sae.activations.store import Store
from expander_sae.activations.texts import Batch
from expander_sae.benchmarking.measure import describe_machine, interleaved
from expander_sae.benchmarking.results import Goal, Result

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
LAYER = 12
GOAL = Goal(0.95)
"""What a harvest should reach of the speed of the forward pass alone."""


class Harvesting:
    """A harvest of the first batches of a text, and the bare forward pass over the same ones."""

    def __init__(self, language_model: LanguageModel, text: TextConfig, batches: int | None, folder: Path) -> None:
        self.language_model, self.text = language_model, settled_text(language_model, text)
        self.batches: list[Batch] = list(islice(text_batches(language_model, self.text), batches))
        self.tokens = sum(batch.tokens for batch in self.batches)
        self._folder, self._number = folder, 0
        self._cut = _cut_behind(language_model.model.get_submodule("model"), LAYER)

    def ours(self) -> Store:
        """Text to disk, into a new folder."""
        self._number += 1
        out = self._folder / f"{self.language_model.precision}-{self._number}"
        (store,) = harvest(
            self.language_model, [f"layers.{LAYER}"], tokens=self.tokens, out=out, text=self.text
        ).values()  # fmt: skip
        return store

    @torch.no_grad()
    def theirs(self) -> None:
        """The model alone, up to that layer."""
        for batch in self.batches:
            self._cut(input_ids=batch.ids.to(self.language_model.device), use_cache=False)
        if self.language_model.device.type == "cuda":
            torch.cuda.synchronize()

    def result(self, ours: float, theirs: float) -> Result:
        """How the two compare, given their seconds."""
        each = f"{self.tokens / ours:,.0f} tokens a second from text to disk, against {self.tokens / theirs:,.0f}"
        work = f"harvest of {self.tokens:,} tokens behind layer {LAYER}, {self.language_model.precision}"
        return Result(work, "the forward pass alone", ours, theirs, "s", GOAL, note=each)


def _cut_behind(base: nn.Module, layer: int) -> nn.Module:
    """The same model without its later layers; the weights are shared."""
    cut = copy.copy(base)
    cut._modules = {**base._modules, "layers": base.get_submodule("layers")[: layer + 1]}  # type: ignore[index]
    return cut


def lost(rough: Store, fine: Store) -> float:
    """The mean square of what is off in a store, in parts of the variance of its ordinary tokens."""
    those, these = rough[0 : rough.tokens], fine[0 : fine.tokens]
    ordinary = ~these.massive
    right = these.activations[ordinary].float()
    off = those.activations[ordinary].float() - right
    return float(off.square().sum() / (right - right.mean(dim=0)).square().sum())


@contextmanager
def in_every_precision(model: str, text: TextConfig, batches: int) -> Iterator[dict[str, Harvesting]]:
    """A harvest in each precision that commands offer."""
    with tempfile.TemporaryDirectory() as folder:
        yield {
            precision: Harvesting(
                load_language_model(model, dtype=getattr(torch, precision)), text, batches, Path(folder)
            )
            for precision in get_args(Precision)
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harvest", description=__doc__)
    parser.add_argument("--model", default=SMOLLM2, help="what to harvest from")
    parser.add_argument("--text", default="python", help="the text, as `expander harvest` takes it")
    parser.add_argument("--batches", type=int, default=8, help="of 4,096 tokens each")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each, of which the median counts")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what counts as a second")
    asked = parser.parse_args()
    with in_every_precision(asked.model, TextConfig(asked.text, part="all"), asked.batches) as harvests:
        contestants = {
            f"{precision} {side}": getattr(each, side)
            for precision, each in harvests.items()
            for side in ("ours", "theirs")
        }
        times = interleaved(contestants, asked.repeats, CLOCKS[asked.clock])
        results = [
            each.result(times[f"{precision} ours"], times[f"{precision} theirs"])
            for precision, each in harvests.items()
        ]
        off = lost(harvests["bfloat16"].ours(), harvests["float32"].ours())
    machine = describe_machine()
    print(
        f"{machine['processor']}, {machine['vector instructions']}, {machine['threads']} threads, {asked.clock} clock"
    )
    for result in results:
        print(f"{result.work}: {result.note}, {result.ratio:.2f} times as many (goal {result.goal})")
    print(f"bfloat16 is off by {off:.5f} of the variance of ordinary activations")


if __name__ == "__main__":
    main()
