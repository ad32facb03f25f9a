"""On a CUDA device: are the kernels right on the hardware, and how do they compare with dense bfloat16 and the paper's?

`python -m benchmarks.gpu` writes gpu.json and gpu.md into benchmarks/results/, in about three minutes. `--paper FOLDER`
names a clone of rodrgo/expander-sae, the research code of the Expander SAE paper, whose kernels then take part;
`--model FOLDER` a language model to harvest from (smollm2 otherwise, fetched with pip).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harvest import Harvesting
from expander_sae import OMP, Support
from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import load_language_model
from expander_sae.activations.texts import documents
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.benchmarking.cases import DenseTopK, Sizes, random_dictionary
from expander_sae.benchmarking.measure import describe_machine
from expander_sae.benchmarking.measure import interleaved as by_the_clock
from expander_sae.benchmarking.results import Goal, Result, as_json, as_markdown, as_table
from expander_sae.coders import TopK
from expander_sae.console import terminal
from expander_sae.errors import ExpanderError
from expander_sae.kernels import Rules, combine, pursue, select
from expander_sae.kernels.candidates import CandidateColumns, gram_among, pursue_candidates
from expander_sae.kernels.inputs import Implementation
from expander_sae.supports import NO_ROW
from expander_sae.training.config import TrainConfig
from expander_sae.training.learner import Trainee
from expander_sae.training.sources import TensorBatches
from expander_sae.training.start import Sample, new_autoencoder

REPEATS = 15
RESULTS = Path(__file__).parent / "results"
SIZES = (
    Sizes(m=576, n=4608, k=16, tokens=4096),
    Sizes(tokens=4096),
    Sizes(n=131072, tokens=4096),
    Sizes(m=4096, n=1_048_576, d=16, k=64, tokens=1024),
)
DENSE_BYTES = 8 << 30
"""Scores of a dense encoder that are made at once."""
DOCUMENTS = 1500
"""To harvest from: about 300,000 tokens."""
IMPLEMENTATIONS: tuple[Implementation, Implementation] = ("gpu", "reference")
COMPILED = ((7, 32, False), (3, 10, True), (16, 48, False))
"""Values of a column, features of a token, and signs, at which kernels are tried."""
Work = Callable[[], object]


def interleaved(contestants: Mapping[str, Work], repeats: int = REPEATS) -> dict[str, float]:
    """The median seconds of every contestant by device events; they take turns, after two rounds that compile."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(repeats + 2):
        for name, work in contestants.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            start.record()
            work()
            stop.record()
            stop.synchronize()
            if round_number > 1:
                times[name].append(start.elapsed_time(stop) / 1e3)
    return {name: statistics.median(measured) for name, measured in times.items()}


def compared(work: str, ours: Work, others: Mapping[str, Work], goal: float = 0.0) -> list[Result]:
    """A line for every other contestant."""
    times = interleaved({"ours": ours, **others})
    return [Result(work, name, times["ours"], times[name], "s", Goal(goal)) for name in others]


@torch.no_grad()
def exactness() -> list[Result]:
    """`select` and two pursuits against their definitions at 30 random shapes: to the bit, and by what is left.

    Every other dictionary has columns of different lengths.
    """
    chance, wrong, worst, worst_among = random.Random(0), 0, 0.0, 0.0
    for seed in range(30):
        m, n, tokens = chance.randint(600, 3000), chance.randint(4500, 20_000), chance.randint(1, 300)
        d, k, signed = chance.choice(COMPILED)  # a kernel of its own each
        dtype = chance.choice([torch.float32, torch.bfloat16])
        rows = Support.make("uniform", m=m, n=n, d=d, seed=seed).rows
        if seed % 2:
            rows = rows.where(torch.arange(d) <= torch.randint(d, (n, 1)), NO_ROW)
        rows = rows.cuda()
        x, values, bias = (torch.randn(*shape, device="cuda").to(dtype) for shape in ((tokens, m), (n, d), (n,)))
        ours = select(x, values, rows, k, bias, signed, implementation="gpu")
        defined = select(x, values, rows, k, bias, signed, implementation="reference")
        wrong += not (torch.equal(ours[0], defined[0]) and torch.equal(ours[1], defined[1]))
        few, rules = x[:32].float(), Rules(min(k, m // 2), signed)
        unit = nn.functional.normalize(values.float().masked_fill(rows < 0, 0), dim=1)
        norms = torch.linalg.vector_norm(few, dim=1)
        gpu, textbook = (
            _left(few, unit, rows, pursue(few, unit, rows, None, rules, orthogonal=True, implementation=name))
            for name in IMPLEMENTATIONS
        )
        worst = max(worst, float(((gpu - textbook) / norms).abs().max()))
        gpu, textbook = (
            _left(few, unit, rows, _pursue_among(few, unit, rows, rules, name)) for name in IMPLEMENTATIONS
        )
        worst_among = max(worst_among, float(((gpu - textbook) / norms).abs().max()))
    print(f"select: {30 - wrong} of 30 random shapes equal the definition to the last bit")
    print(f"pursue: at 30 random shapes, norms of what is left differ by {worst:.1e} of the token's at most")
    print(f"among candidates: at 30 random shapes, by {worst_among:.1e}")
    if wrong or not max(worst, worst_among) < 1e-2:
        raise ExpanderError("The kernels are not right on this device.")
    return []


def _pursue_among(
    x: Tensor, unit: Tensor, rows: Tensor, rules: Rules, implementation: Implementation
) -> tuple[Tensor, Tensor]:
    """Codes of the pursuit among each token's k + k / 4 best features."""
    target, among = select(x, unit, rows, rules.k + rules.k // 4, None, rules.signed, implementation="reference")
    gram = gram_among(unit, rows, among, x.shape[1], implementation)
    columns = CandidateColumns(
        gram, target, lambda codes, at: combine(codes, among.gather(1, at), unit, rows, torch.zeros_like(x))
    )
    codes, places = pursue_candidates(columns, x, rules, implementation)
    return codes, among.gather(1, places)


def _left(x: Tensor, unit: Tensor, rows: Tensor, codes: tuple[Tensor, Tensor]) -> Tensor:
    """The norm of what codes leave of every token."""
    return torch.linalg.vector_norm(combine(-codes[0], codes[1], unit, rows, x), dim=1)


def dense_encoder(sizes: Sizes) -> Callable[[Tensor], object]:
    """Dense bfloat16 matmul, relu and topk, the batch cut up where [tokens, n] would not fit."""
    matrix = torch.randn(sizes.m, sizes.n, device="cuda", dtype=torch.bfloat16) / math.sqrt(sizes.m)
    piece = min(sizes.tokens, max(1, DENSE_BYTES // (2 * sizes.n)))

    def encode(x: Tensor) -> None:
        for start in range(0, sizes.tokens, piece):
            (x[start : start + piece] @ matrix).relu_().topk(sizes.k)

    return encode


def compiled_encoder(sizes: Sizes) -> Callable[[Tensor], object]:
    """The same, whole, as torch.compile makes it."""
    matrix = torch.randn(sizes.m, sizes.n, device="cuda", dtype=torch.bfloat16) / math.sqrt(sizes.m)
    return torch.compile(lambda x: (x @ matrix).relu().topk(sizes.k))


@torch.no_grad()
def selection(sizes: Sizes, paper: bool) -> list[Result]:
    """`select` in bfloat16 and float32 against dense bfloat16, and against the paper's kernel and torch's topk."""
    dictionary = random_dictionary(sizes).cuda()
    x = torch.randn(sizes.tokens, sizes.m, device="cuda", dtype=torch.bfloat16)
    half, rows = dictionary.values.bfloat16(), dictionary.rows
    others: dict[str, Work] = {"dense bf16: matmul, relu, topk": partial(dense_encoder(sizes), x)}
    if 2 * sizes.tokens * sizes.n <= DENSE_BYTES and sizes.n < 1 << 20:
        others["dense bf16, torch.compile"] = partial(compiled_encoder(sizes), x)
    lines = compared(f"select, {sizes}, bf16", lambda: select(x, half, rows, sizes.k), others, 1.0)
    whole = x.float()
    others = {"dense bf16: matmul, relu, topk": others["dense bf16: matmul, relu, topk"]}
    if paper and sizes.n <= 1 << 14:  # more would not fit its int32 offsets, and takes minutes to tune
        from kernels.triton.encoder_fwd_v3 import encoder_forward_v3  # type: ignore[import-not-found]

        flat, places, zeros = dictionary.values.detach().flatten(), rows.flatten(), torch.zeros(sizes.n, device="cuda")
        others["the paper's kernel, fp32, and topk"] = lambda: encoder_forward_v3(
            whole, flat, places, zeros, sizes.n, sizes.d
        ).topk(sizes.k)
    return lines + compared(
        f"select, {sizes}, fp32", lambda: select(whole, dictionary.values, rows, sizes.k), others, 1.0
    )


@torch.no_grad()
def pursuit(sizes: Sizes, paper: bool) -> list[Result]:
    """OMP against one dense bfloat16 encode of the same tokens, and against the paper's batched pursuit."""
    dictionary = random_dictionary(sizes).cuda()
    dictionary.normalise_columns()
    x = torch.randn(sizes.tokens, sizes.m, device="cuda")
    encode, half = dense_encoder(sizes), x.bfloat16()
    others: dict[str, Work] = {"one dense bf16 encode": lambda: encode(half)}
    lines = compared(f"OMP, non-negative, {sizes}", lambda: OMP(sizes.k)(dictionary, x), others)
    if paper:
        from inference.batched_structured_omp_qr import batched_structured_omp_qr  # type: ignore[import-not-found]

        flat, places = dictionary.values.detach().flatten(), dictionary.rows.flatten()
        others["the paper's batched OMP"] = lambda: batched_structured_omp_qr(
            flat, places, sizes.m, sizes.n, sizes.d, x, sizes.k
        )
    return lines + compared(f"OMP, signed, {sizes}", lambda: OMP(sizes.k, signed=True)(dictionary, x), others)


class GatheringTopK(DenseTopK):
    """A plain dense TopK autoencoder whose decoder reads k columns, as every quick dense implementation has it."""

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        best = ((x - self.pre_bias) @ self.encoder + self.latent_bias).topk(self.k)
        picked = best.values.relu().to(self.decoder.dtype)
        return (
            nn.functional.embedding_bag(best.indices, self.decoder, per_sample_weights=picked, mode="sum")
            + self.pre_bias
        )


def dense_step(sizes: Sizes, compiled: bool) -> Callable[[Tensor], object]:
    """A training step of it with bfloat16 products, float32 values and Adam."""
    model = GatheringTopK(sizes).cuda()
    forward: Callable[[Tensor], Tensor] = torch.compile(model) if compiled else model
    return _step(lambda x: (x - forward(x)).float().square().sum(), model)


def expander_step(sizes: Sizes) -> Callable[[Tensor], object]:
    """A training step of a tied expander autoencoder, in float32."""
    sae = SparseAutoencoder(random_dictionary(sizes), TopK(sizes.k), latent_bias=True).cuda()
    return _step(lambda x: sae.residual(x).squares, sae, half=False)


def _step(loss_of: Callable[[Tensor], Tensor], model: nn.Module, half: bool = True) -> Callable[[Tensor], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            loss = loss_of(x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def training_step(sizes: Sizes) -> list[Result]:
    """A whole step against plain dense ones."""
    x = torch.randn(sizes.tokens, sizes.m, device="cuda")
    others = {
        "plain dense TopK step, bf16 products": partial(dense_step(sizes, False), x),
        "the same, torch.compile": partial(dense_step(sizes, True), x),
    }
    return compared(f"training step, {sizes}", partial(expander_step(sizes), x), others)


def trainer_steps(sizes: Sizes) -> list[Result]:
    """Steps of the trainer, with everything that goes with them, against its step of a dense dictionary."""
    dense = TrainConfig(n=sizes.n, k=sizes.k, batch=sizes.tokens, precision="bfloat16")
    sparse = TrainConfig(n=sizes.n, k=sizes.k, batch=sizes.tokens, d=sizes.d)
    configs = {
        "TopK": dataclasses.replace(sparse, coder="topk", construction="uniform"),
        "OMP and learned rows": dataclasses.replace(sparse, objective="fidelity"),
        "readable": sparse,
    }
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4 * sizes.tokens, sizes.m, generator=generator) * torch.rand(sizes.m, generator=generator)
    against = {"its step of a dense dictionary, bf16 products": _trainer_step(dense, x)}
    lines = []
    for name, config in configs.items():
        lines += compared(f"step of the trainer, {name}, {sizes}", _trainer_step(config, x), against)
    return lines


def _trainer_step(config: TrainConfig, x: Tensor) -> Work:
    sample = Sample.of(TensorBatches(x, batch=config.batch), config.batch, device=torch.device("cuda"))
    trainee, on_gpu = Trainee(config, new_autoencoder(config, sample), sample), x.cuda()

    def step() -> None:
        first = trainee.tokens % len(on_gpu)
        trainee.step(on_gpu[first : first + config.batch])

    return step


@torch.no_grad()
def harvesting(model: str) -> list[Result]:
    """A harvest of real text to disk against the bare forward pass of the same batches, cut off behind that layer."""
    language_model = load_language_model(model, dtype=torch.bfloat16, device="cuda")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.jsonl"  # prose out of Python's own documentation takes longer to find than to read
        prose = islice(documents("python"), DOCUMENTS)
        path.write_text("".join(json.dumps({"text": document.text}) + "\n" for document in prose))
        work = Harvesting(language_model, TextConfig(text=str(path), part="all"), None, Path(folder))
        times = by_the_clock({"ours": work.ours, "theirs": work.theirs}, 1)
    return [work.result(times["ours"], times["theirs"])]


def cases(paper: bool, model: str) -> Iterator[tuple[str, Callable[[], list[Result]]]]:
    """All that is measured, by name."""
    yield "exactness", exactness
    for sizes in SIZES:
        yield f"select {sizes}", partial(selection, sizes, paper)
    for sizes in (Sizes(m=576, n=4608, k=16, tokens=4096), Sizes(tokens=4096), Sizes(n=131072, tokens=1024)):
        yield f"pursuit {sizes}", partial(pursuit, sizes, paper and sizes.n <= 1 << 14)
    for sizes in (Sizes(tokens=4096), Sizes(n=131072, tokens=4096)):
        yield f"training step {sizes}", partial(training_step, sizes)
    yield "steps of the trainer", partial(trainer_steps, Sizes(tokens=4096))
    yield "harvest", partial(harvesting, model)


def main() -> None:
    """Measure every case, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--paper", type=Path, help="a clone of rodrgo/expander-sae")
    parser.add_argument("--only", nargs="+", default=[""], help="of the cases, those with one of these in their names")
    parser.add_argument("--model", default="smollm2", help="what to harvest from")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu measures on a CUDA device, and torch sees none here.")
    if asked.paper:
        sys.path.insert(0, str(asked.paper))
    results = list[Result]()
    for name, measure in cases(asked.paper is not None, asked.model):
        if not any(part in name for part in asked.only):
            continue
        start = time.perf_counter()
        found = measure()
        for each in found:
            print(f"{each.work} | {each.against} | {1e3 * each.ours:.3f} ms | {1e3 * each.theirs:.3f} ms", flush=True)
        results += found
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    machine, command = describe_machine(), "python -m benchmarks.gpu"
    terminal().print(as_table(results, machine))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(as_json(results, machine, command))
    (RESULTS / "gpu.md").write_text("# Ratios on a GPU\n\n" + as_markdown(results, machine, command))


if __name__ == "__main__":
    main()
