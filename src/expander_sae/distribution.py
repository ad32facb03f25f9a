"""Several processes that share a piece of work; one process is the group of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from expander_sae.errors import ExpanderError

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it takes them for dead."""


class DeadProcessError(ExpanderError):
    """Another process of the run is gone."""


@dataclass(frozen=True)
class Group:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> Tensor:
        """The tensor, now holding the sum over all processes."""
        if self.world > 1:
            with _deaths_noticed():
                dist.all_reduce(tensor)
        return tensor

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
                    dist.broadcast(tensor.detach(), 0)  # autograd is not to know of it

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.world == 1:
            return flag
        return bool(self.add_up(torch.tensor(int(flag), device=self.carrier(torch.device("cuda")))))

    def wait(self) -> None:
        """Come back when every process is here."""
        if self.world > 1:
            with _deaths_noticed():
                dist.barrier()

    def carrier(self, device: torch.device) -> torch.device:
        """Where a tensor of this device has to be to be sent."""
        return device if dist.get_backend() == "nccl" else torch.device("cpu")

    def send(self, tensor: Tensor) -> Message:
        """The tensor on its way to the first process; it must not be changed before it has arrived."""
        with _deaths_noticed():
            return Message(tensor, dist.isend(tensor, 0))

    def receive(self, tensor: Tensor, sender: int) -> Message:
        """The tensor as it will be when the sender's next message has arrived in it."""
        with _deaths_noticed():
            return Message(tensor, dist.irecv(tensor, sender))


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


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun started, with NCCL where every one has a GPU of its own and gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_group()
        return
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
