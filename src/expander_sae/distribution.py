"""Several processes that share a piece of work; one process is the group of one.

Batches and columns are shared in two directions: the processes of a run stand in a grid (torch's `DeviceMesh`). Those
of one of its columns hold the same features and read tokens of their own; those of one row read the same tokens and
hold features of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it takes them for dead."""


PIECE = 1 << 20
"""Rows that are sent at a time where all of them would need room twice."""


class DeadProcessError(ExpanderError):
    """Another process of the run is gone."""


@dataclass(frozen=True)
class Group:
    """The processes of a run or of one line of its grid, seen from one of them."""

    rank: int = 0
    world: int = 1
    line: DeviceMesh | None = None
    """The line of the grid; none if these are all processes."""

    def __deepcopy__(self, memo: object) -> Group:
        return self  # whoever is copied is a member still

    @property
    def _handle(self) -> dist.ProcessGroup | None:
        return None if self.line is None else self.line.get_group()

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> Tensor:
        """The tensor, now holding the sum over all processes."""
        if self.world > 1:
            with _deaths_noticed():
                dist.all_reduce(tensor, group=self._handle)
        return tensor

    def numbers(self, own: Sequence[int]) -> list[list[int]]:
        """The whole numbers of every process, which has as many as the others."""
        if self.world == 1:
            return [list(own)]
        return self.gathered(torch.tensor([list(own)], device=self.carrier(torch.device("cuda")))).tolist()

    def words(self, own: str) -> list[str]:
        """The word of every process, none of which holds a line break, in their order."""
        if self.world == 1:
            return [own]
        letters = torch.tensor(list(f"{own}\n".encode()), device=self.carrier(torch.device("cuda")))
        return bytes(self.gathered(letters).tolist()).decode().split("\n")[:-1]

    def total(self, count: int) -> int:
        """The sum of the counts of all processes."""
        return sum(sum(own) for own in self.numbers([count]))

    def gathered(self, share: Tensor) -> Tensor:
        """The rows of all processes, those with small numbers first."""
        if self.world == 1:
            return share
        counts = torch.zeros(self.world, dtype=torch.int64, device=share.device)
        counts[self.rank] = len(share)
        ends = self.add_up(counts).cumsum(0).tolist()
        whole = share.new_zeros(ends[-1], *share.shape[1:])
        whole[ends[self.rank] - len(share) : ends[self.rank]] = share
        return self.add_up(whole)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the tensors of the first."""
        if self.world > 1:
            with _deaths_noticed():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), group=self._handle, group_src=0)  # autograd is not to know of it

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.world == 1:
            return flag
        return bool(self.add_up(torch.tensor(int(flag), device=self.carrier(torch.device("cuda")))))

    def summed(self, part: Tensor) -> Tensor:
        """The sum of all processes' parts; each part's gradient is that of the sum, which every process computes."""
        if self.line is None:
            return part
        from torch.distributed.tensor import DTensor, Partial

        with _deaths_noticed():
            return DTensor.from_local(part, self.line, [Partial()], run_check=False).full_tensor()

    def side_by_side(self, columns: Tensor) -> Tensor:
        """The columns [rows, k] of all processes in their order; each one's gradient flows back to where it is from."""
        if self.line is None:
            return columns
        from torch.distributed.tensor import DTensor, Shard

        with _deaths_noticed():
            return DTensor.from_local(columns, self.line, [Shard(1)], run_check=False).full_tensor()

    def collected(self, rows: Tensor) -> Tensor | None:
        """The rows of all processes, each of which has as many, in the memory of the first one; None in the others."""
        if self.world == 1:
            return rows.cpu()
        whole = rows.new_empty(self.world, *rows.shape, device="cpu") if self.rank == 0 else None
        place = self.carrier(rows.device)
        for start in range(0, len(rows), PIECE):
            piece = rows[start : start + PIECE].to(place).contiguous()
            pieces = [torch.empty_like(piece) for _ in range(self.world)] if self.rank == 0 else None
            with _deaths_noticed():
                dist.gather(piece, pieces, group=self._handle, group_dst=0)
            for number, each in enumerate(pieces or []):
                assert whole is not None
                whole[number, start : start + PIECE] = each
        return None if whole is None else whole.flatten(0, 1)

    def wait(self) -> None:
        """Come back when every process is here."""
        if self.world > 1:
            with _deaths_noticed():
                dist.barrier(group=self._handle)

    def carrier(self, device: torch.device) -> torch.device:
        """Where a tensor of this device has to be to be sent."""
        return device if dist.get_backend(self._handle) == "nccl" else torch.device("cpu")

    def send(self, tensor: Tensor) -> Message:
        """The tensor on its way to the first process; it must not be changed before it has arrived."""
        with _deaths_noticed():
            return Message(tensor, dist.isend(tensor, 0))

    def receive(self, tensor: Tensor, sender: int) -> Message:
        """The tensor as it will be when the sender's next message has arrived in it."""
        with _deaths_noticed():
            return Message(tensor, dist.irecv(tensor, sender))


@dataclass(frozen=True)
class Grid:
    """The processes of a run, by what they share, seen from one of them."""

    everyone: Group
    data: Group
    """Those that hold the same columns and share every batch."""
    features: Group
    """Those that read the same tokens and share the columns."""


class Message:
    """A tensor on its way between two processes."""

    def __init__(self, tensor: Tensor, work: dist.Work | None) -> None:
        self._tensor, self._work = tensor, work

    def arrived(self) -> Tensor:
        """The tensor, once it is there."""
        if self._work is not None:
            with _deaths_noticed():
                self._work.wait()
        return self._tensor


@contextmanager
def _deaths_noticed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DeadProcessError(
            "Another process of this run died; its own message says why, and what was saved is whole: training goes on "
            "from it with --resume, a harvest when it is run again."
        ) from error


def current_group() -> Group:
    """The group that this process was put in, by `joined` or by the program that calls the library."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group()


def starts_again() -> bool:
    """Whether torchrun is to start the processes of this run again when one dies or when there are more or fewer."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def grid_of(everyone: Group, feature_shards: int = 1) -> Grid:
    """The grid of a run whose columns lie in this many shards, each in a process of its own."""
    if feature_shards == 1:
        return Grid(everyone, everyone, Group())
    if everyone.world % feature_shards:
        raise ExpanderError(
            f"{everyone.world} processes cannot hold {feature_shards} shards of the features in equal numbers; start a "
            f"multiple of {feature_shards} processes with torchrun."
        )
    from torch.distributed.device_mesh import init_device_mesh

    kind = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shape = everyone.world // feature_shards, feature_shards
    with _deaths_noticed():
        mesh = init_device_mesh(kind, shape, mesh_dim_names=("data", "features"))
    lines = (mesh["data"], mesh["features"])
    data, features = (Group(line.get_local_rank(), line.size(), line) for line in lines)
    return Grid(everyone, data, features)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun started, with NCCL where every one has a GPU of its own and gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_group()
        return
    if starts_again() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ExpanderError(
            "With --max-restarts processes would wait for those that died, since all meet in one store of torchrun's; "
            "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of torchrun."
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if on_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield current_group()
        current_group().wait()  # a process that leaves while others still talk can abort in its threads' destructors
    finally:
        dist.destroy_process_group()
