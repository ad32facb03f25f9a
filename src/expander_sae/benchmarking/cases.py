"""The work that is measured, and what it is measured against.

`python -m expander_sae.benchmarking.cases select` prints one number, the bytes that `select` takes above its inputs:
memory is measured in a process of its own.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.benchmarking.measure import interleaved, peak_above_now
from expander_sae.benchmarking.results import Effort, Goal, Result
from expander_sae.coders import OMP, TopK
from expander_sae.dictionaries import ComposedDictionary, DenseDictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.kernels import select, square_norm
from expander_sae.supports import Support
from expander_sae.training import Sample, TensorBatches, TrainConfig, Trainee, new_autoencoder


@dataclass(frozen=True)
class Sizes:
    """A dictionary and a batch."""

    m: int = 2048
    n: int = 16384
    d: int = 7
    k: int = 32
    tokens: int = 2048

    def __str__(self) -> str:
        return f"m={self.m} n={self.n} d={self.d} k={self.k}, {self.tokens} tokens"

    def sparse_encode(self) -> Effort:
        """One correlation of every token with every column of d values, in float32 with its rows."""
        return Effort(self.tokens * self.n * self.d, 8 * self.n * self.d + 4 * self.tokens * self.m)

    def dense_encode(self) -> Effort:
        """The same with columns of m values."""
        return Effort(self.tokens * self.n * self.m, 4 * self.n * self.m + 4 * self.tokens * self.m)

    def step(self, dense: bool, matrices: int) -> Effort:
        """An encode, five products at the codes only, and Adam: values, gradient and two moments of the columns."""
        encode, width = (self.dense_encode(), self.m) if dense else (self.sparse_encode(), self.d)
        moments = 3 * 4 * self.n * width + (matrices - 1) * 16 * self.n * width
        return Effort(encode.multiply_adds + 5 * self.tokens * self.k * width, encode.bytes + moments)

    def plain_step(self) -> Effort:
        """A step of an untied dense autoencoder that multiplies whole matrices: two products forwards, three back."""
        return Effort(5 * self.tokens * self.n * self.m, self.step(dense=True, matrices=2).bytes)


TRAINER = Sizes(m=576, n=4608, d=7, k=16, tokens=1024)
BATCHES = 8
"""Batches that steps of the trainer take in turns: on a single one most features would soon be dead."""
"""Of the residual stream of a 135M model, with eight features for each coordinate."""
SELECT = Sizes(n=131072)
TRAIN = Sizes(n=1_048_576, d=16, tokens=4096)
_MEBIBYTE = 1 << 20
Case = tuple[str, Callable[[], list[Result]]]


def random_dictionary(sizes: Sizes) -> ExpanderDictionary:
    """Random values on a uniform support: how fast things are does not depend on what was learned."""
    support = Support.make("uniform", m=sizes.m, n=sizes.n, d=sizes.d, seed=0)
    return ExpanderDictionary(support, torch.randn(sizes.n, sizes.d) / sizes.d**0.5)


def dense_encode(
    x: Float[Tensor, "batch m"], matrix: Float[Tensor, "m n"], k: int
) -> tuple[Float[Tensor, "batch k"], Tensor]:
    """What a dense TopK encoder does: matmul, relu, topk."""
    best = (x @ matrix).relu_().topk(k)
    return best.values, best.indices


@torch.no_grad()
def select_against_dense(sizes: Sizes, goal: float, csr_goal: float | None, repeats: int) -> list[Result]:
    """`select` against dense torch and, if it has a goal, against a CSR product with the same columns."""
    dictionary, x = random_dictionary(sizes), torch.randn(sizes.tokens, sizes.m)
    matrix = dictionary.to_dense().contiguous()
    contestants: dict[str, Callable[[], object]] = {
        "ours": lambda: select(x, dictionary.values, dictionary.rows, sizes.k),
        "dense torch: matmul, relu, topk": lambda: dense_encode(x, matrix, sizes.k),
    }
    goals = {"dense torch: matmul, relu, topk": goal}
    if csr_goal is not None:
        sparse, turned = _csr(dictionary), x.T.contiguous()
        contestants["torch CSR: product, topk"] = lambda: (sparse @ turned).T.contiguous().topk(sizes.k)
        goals["torch CSR: product, topk"] = csr_goal
    times = interleaved(contestants, repeats)
    return [
        Result(f"select, {sizes}", name, times["ours"], times[name], "s", Goal(least), sizes.sparse_encode(),
               sizes.dense_encode() if name.startswith("dense") else sizes.sparse_encode())
        for name, least in goals.items()
    ]  # fmt: skip


@torch.no_grad()
def composed_against_dense(sizes: Sizes, atoms: int, repeats: int) -> list[Result]:
    """`select` among mixtures of atoms against dense torch on a matrix of as many columns."""
    mixtures = random_dictionary(dataclasses.replace(sizes, m=atoms))
    dictionary, x = ComposedDictionary(DenseDictionary(sizes.m, atoms), mixtures), torch.randn(sizes.tokens, sizes.m)
    matrix = torch.randn(sizes.m, sizes.n) / sizes.m**0.5
    times = interleaved(
        {"ours": lambda: dictionary.select(x, sizes.k), "theirs": lambda: dense_encode(x, matrix, sizes.k)}, repeats
    )
    name = f"select among mixtures of {atoms} atoms, {sizes}"
    sparse, dense = sizes.sparse_encode(), dataclasses.replace(sizes, n=atoms).dense_encode()
    ours = Effort(sparse.multiply_adds + dense.multiply_adds, sparse.bytes + dense.bytes)
    against = "dense torch: matmul, relu, topk"
    return [Result(name, against, times["ours"], times["theirs"], "s", Goal(25), ours, sizes.dense_encode())]


def _csr(dictionary: ExpanderDictionary) -> Tensor:
    """The columns of a dictionary as the rows of a sparse matrix [n, m]."""
    starts = torch.arange(0, dictionary.n * dictionary.d + 1, dictionary.d)
    columns, values = dictionary.rows.flatten().long(), dictionary.values.detach().flatten()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its CSR support a beta
        return torch.sparse_csr_tensor(starts, columns, values, (dictionary.n, dictionary.m))


def check_sklearn() -> None:
    """Refuse to begin what scikit-learn will be missed in."""
    if find_spec("sklearn") is None:
        raise ExpanderError("The comparison with scikit-learn needs it: pip install 'expander-sae[bench]'.")


@torch.no_grad()
def omp_against_dense_and_sklearn(sizes: Sizes, sklearn_tokens: int, repeats: int) -> list[Result]:
    """Orthogonal matching pursuit against one dense encode of the same tokens, and against scikit-learn's."""
    from sklearn.linear_model import orthogonal_mp_gram

    dictionary, x = random_dictionary(sizes), torch.randn(sizes.tokens, sizes.m)
    dictionary.normalise_columns()
    matrix, coder = dictionary.to_dense().contiguous(), OMP(sizes.k, signed=True)
    encode = interleaved(
        {"ours": lambda: coder(dictionary, x), "theirs": lambda: dense_encode(x, matrix, sizes.k)}, repeats
    )
    gram, few = (matrix.T @ matrix).numpy(), x[:sklearn_tokens]
    inner = (matrix.T @ few.T).numpy()
    greedy = interleaved(
        {
            "ours": lambda: coder(dictionary, few),
            "theirs": lambda: orthogonal_mp_gram(gram, inner, n_nonzero_coefs=sizes.k, copy_Gram=False, copy_Xy=True),
        },
        1,
    )
    small = f"OMP, m={sizes.m} n={sizes.n} d={sizes.d} k={sizes.k}, {sklearn_tokens} tokens"
    return [
        Result(f"OMP, {sizes}", "one dense encode", encode["ours"], encode["theirs"], "s", Goal(6.67),
               sizes.sparse_encode(), sizes.dense_encode()),
        Result(small, "scikit-learn orthogonal_mp_gram", greedy["ours"], greedy["theirs"], "s", Goal(50),
               note="scikit-learn is given its Gram matrix and correlations; making them is not counted."),
    ]  # fmt: skip


def expander_step(sizes: Sizes) -> Callable[[Tensor], object]:
    """One training step of a tied expander autoencoder under TopK: forward, backward, Adam."""
    sae = SparseAutoencoder(random_dictionary(sizes), TopK(sizes.k), latent_bias=True)
    return _step(lambda x: sae.residual(x).squares, torch.optim.Adam(sae.parameters(), lr=1e-4, fused=True))


class DenseTopK(nn.Module):
    """A plain dense TopK autoencoder, as one would write it in torch."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.k = sizes.k
        self.encoder = nn.Parameter(torch.randn(sizes.m, sizes.n) / sizes.m**0.5)
        self.decoder = nn.Parameter(self.encoder.detach().T.clone())
        self.pre_bias, self.latent_bias = nn.Parameter(torch.zeros(sizes.m)), nn.Parameter(torch.zeros(sizes.n))

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
        """The reconstruction."""
        best = ((x - self.pre_bias) @ self.encoder + self.latent_bias).topk(self.k)
        codes = torch.zeros(x.shape[0], self.encoder.shape[1]).scatter(1, best.indices, best.values.relu())
        return codes @ self.decoder + self.pre_bias


class MaskedTopK(nn.Module):
    """The autoencoder of the Expander SAE paper's research code: a dense mask on dense values, tied unit columns."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.k = sizes.k
        self.mask = (random_dictionary(sizes).to_dense() != 0).float()
        self.values = nn.Parameter(torch.randn(sizes.m, sizes.n) / sizes.d**0.5)
        self.pre_bias, self.latent_bias = nn.Parameter(torch.zeros(sizes.m)), nn.Parameter(torch.zeros(sizes.n))

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
        """The reconstruction."""
        columns = nn.functional.normalize(self.mask * self.values, dim=0)
        best = ((x - self.pre_bias) @ columns + self.latent_bias).topk(self.k)
        codes = torch.zeros(x.shape[0], columns.shape[1]).scatter(1, best.indices, best.values)
        return codes @ columns.T + self.pre_bias


def dense_step(model: DenseTopK | MaskedTopK) -> Callable[[Tensor], object]:
    """One training step of an autoencoder that is dense in memory: matmul, topk, scatter, matmul, backward, Adam."""
    return _step(lambda x: square_norm(x - model(x)), torch.optim.Adam(model.parameters(), lr=1e-4, fused=True))


def _step(loss_of: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[Tensor], object]:
    """A step with our trainer's sum of squares, for ours and for others: torch's pass over the batch more often."""

    def step(x: Tensor) -> object:
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def training_step(sizes: Sizes, repeats: int) -> list[Result]:
    """A whole training step against a plain dense one, and against the paper's, which masks a dense one."""
    x, ours = torch.randn(sizes.tokens, sizes.m), expander_step(sizes)
    dense, masked = dense_step(DenseTopK(sizes)), dense_step(MaskedTopK(sizes))
    times = interleaved({"ours": lambda: ours(x), "dense": lambda: dense(x), "masked": lambda: masked(x)}, repeats)
    work, done = f"training step, {sizes}", sizes.step(dense=False, matrices=1)
    return [
        Result(work, "plain dense TopK step in torch", times["ours"], times["dense"], "s", Goal(100),
               done, sizes.plain_step()),
        Result(work, "the paper's research code: masked dense step", times["ours"], times["masked"], "s", Goal(100),
               done, sizes.plain_step(), "Written anew in torch from what the code does; it also runs the model once "
               "more to count who fired, which is left out."),
    ]  # fmt: skip


def file_size(sizes: Sizes) -> list[Result]:
    """The folder of an autoencoder with fp16 values against the values of a dense dictionary in fp16."""
    sae = SparseAutoencoder(random_dictionary(sizes), TopK(sizes.k))
    with tempfile.TemporaryDirectory() as folder:
        sae.save(Path(folder) / "sae", dtype=torch.float16)
        ours = sum(file.stat().st_size for file in (Path(folder) / "sae").iterdir())
    theirs = 2 * sizes.m * sizes.n
    work = f"folder on disk, fp16, m={sizes.m} n={sizes.n} d={sizes.d}"
    return [Result(work, "dense values, fp16", ours, theirs, "bytes", Goal(250))]


def trainer_steps(repeats: int) -> list[Result]:
    """A step with one-shot codes, and one with pursuit on learned rows, against a step of a dense TopK dictionary.

    A turn is as many steps as there are between moves of learned rows, so that each turn of the pursuit has one move.
    """
    configs = {
        "one-shot": TrainConfig(n=TRAINER.n, d=TRAINER.d, k=TRAINER.k, coder="topk", construction="uniform"),
        "pursuit": TrainConfig(n=TRAINER.n, d=TRAINER.d, k=TRAINER.k, objective="fidelity"),
        "dense": TrainConfig(n=TRAINER.n, k=TRAINER.k),
    }
    steps = configs["pursuit"].move_every
    turns = interleaved({name: _trainer_turn(config, steps) for name, config in configs.items()}, repeats)
    times = {name: seconds / steps for name, seconds in turns.items()}
    against = "the same of a dense dictionary"
    return [
        Result(f"step of the trainer, TopK, {TRAINER}", against, times["one-shot"], times["dense"], "s", Goal(15),
               TRAINER.step(dense=False, matrices=1), TRAINER.step(dense=True, matrices=1)),
        Result(f"step of the trainer, OMP and learned rows, {TRAINER}", f"{against}, TopK", times["pursuit"],
               times["dense"], "s", Goal(6), their_effort=TRAINER.step(dense=True, matrices=1),
               note=f"The mean of {steps} steps, the last of which moves the rows."),
    ]  # fmt: skip


def _trainer_turn(config: TrainConfig, steps: int) -> Callable[[], None]:
    """Some steps on the same few batches, enough for most features to fire, of a run that has just begun."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCHES, TRAINER.tokens, TRAINER.m, generator=generator)
    x *= torch.rand(TRAINER.m, generator=generator)
    sample = Sample.of(TensorBatches(x.flatten(0, 1), batch=config.batch), config.batch)
    trainee, batches = Trainee(config, new_autoencoder(config, sample), sample), cycle(x)

    def turn() -> None:
        for batch in islice(batches, steps):
            trainee.step(batch)

    return turn


def _measure_select() -> int:
    dictionary, x = random_dictionary(SELECT), torch.randn(SELECT.tokens, SELECT.m)
    values, rows = dictionary.values.detach(), dictionary.rows
    select(x[:64], values[:64], rows[:64], SELECT.k)  # compiled code is not part of a call's memory
    return peak_above_now(lambda: select(x, values, rows, SELECT.k))


def _measure_training() -> int:
    warm_up = Sizes(m=64, n=128, d=4, k=4, tokens=64)
    expander_step(warm_up)(torch.randn(64, 64))
    x = torch.randn(TRAIN.tokens, TRAIN.m)

    def train() -> None:
        step = expander_step(TRAIN)
        for _ in range(3):
            step(x)

    return peak_above_now(train)


def _in_a_fresh_process(what: str) -> int:
    command = [sys.executable, "-m", "expander_sae.benchmarking.cases", what]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise ExpanderError(f"Measuring the memory of {what} failed: {finished.stderr.strip().splitlines()[-1]}")
    return int(finished.stdout)


def peak_memory() -> list[Result]:
    """The two promises about memory; the alternative is what the same work holds when it is dense."""
    chosen, trained = _in_a_fresh_process("select"), _in_a_fresh_process("train")
    dense_scores = 4 * SELECT.tokens * SELECT.n
    dense_training = 4 * 4 * TRAIN.m * TRAIN.n  # values, gradient and two moments of Adam
    return [
        Result(f"peak memory above the inputs, select, {SELECT}", "the correlations alone, [tokens, n]", chosen,
               dense_scores, "bytes", Goal(most=64 * _MEBIBYTE)),
        Result(f"peak memory above the data, training, {TRAIN}", "dense values, gradient and Adam", trained,
               dense_training, "bytes", Goal(most=2048 * _MEBIBYTE)),
    ]  # fmt: skip


def cases(repeats: int) -> Iterator[Case]:
    """Every case of the table with a name to show while it runs; the slowest dense ones get fewer repeats."""
    check_sklearn()
    few = max(1, repeats // 3)
    yield "select, 16384 features", lambda: select_against_dense(Sizes(), 50, 25, repeats)
    yield "select, 131072 features", lambda: select_against_dense(Sizes(n=131072, tokens=1024), 100, None, few)
    mixed = Sizes(n=131072, d=8, tokens=1024)
    yield "select, 131072 mixtures of atoms", lambda: composed_against_dense(mixed, 2304, few)
    yield "training step", lambda: training_step(Sizes(tokens=1024), repeats)
    yield "steps of the trainer", lambda: trainer_steps(few)
    yield "orthogonal matching pursuit", lambda: omp_against_dense_and_sklearn(Sizes(tokens=1024), 64, repeats)
    yield "size on disk", lambda: file_size(Sizes())
    yield "peak memory", peak_memory


if __name__ == "__main__":
    print({"select": _measure_select, "train": _measure_training}[sys.argv[1]]())
