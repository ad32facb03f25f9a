"""Several processes that train one dictionary on shares of every batch; one process is the group of one."""

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

    def interleaved(self, share: Tensor, length: int) -> Tensor:
        """`length` rows of which every process has its share, rows rank, rank + world, ..., as one would have them."""
        if self.world == 1:
            return share
        whole = share.new_zeros(length, *share.shape[1:])
        whole[self.rank :: self.world] = share
        return self.add_up(whole)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the tensors of the first."""
        if self.world > 1:
            with _deaths_noticed():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Come back when every process is here."""
        if self.world > 1:
            with _deaths_noticed():
                dist.barrier()


@contextmanager
def _deaths_noticed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DeadProcessError(
            "Another process of this run died; its own message says why, and the run continues from its last "
            "checkpoint with --resume."
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
    finally:
        dist.destroy_process_group()
