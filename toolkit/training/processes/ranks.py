"""The processes that share one training, a GPU each: who is who, sums over all of them, one voice for an error."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing from torch's stubs
from torch.distributed.rendezvous import rendezvous

from toolkit.errors import INTERRUPTED, GradeError, Interrupted, RunError

T = TypeVar("T")

FAILED = "grade/failed"  # the key under which the first rank that fails says so
LAUNCHED = "grade"  # torchrun's name of a job, when `launch` started it
PATIENCE = timedelta(hours=2)  # for a rank that reads the cohort while the others wait


class RankLost(RunError):
    """Another process of this training has ended."""


@dataclass(frozen=True)
class Ranks:
    """One process among those of a training.

    Attributes:
        rank: 0 to `size` - 1; rank 0 alone writes and shows.
        size: processes.
        local: number of its GPU on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes and shows."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all ranks, which are the same bits on every rank.

        Args:
            tensors: float32, of the same shapes on every rank and on one device.

        Raises:
            RankLost: another process has ended.
        """
        if self.size == 1:
            return
        if len(tensors) == 1 and tensors[0].is_contiguous():
            with _lost():
                distributed.all_reduce(tensors[0])
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message for all
        with _lost():
            distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one of the ranks.

        Raises:
            RankLost: another process has ended.
        """
        flags = torch.tensor([float(flag)])
        self.sum([flags])
        return bool(flags)

    def lead(self, work: Callable[[], str]) -> str:
        """The text that rank 0 makes, for all; the others wait. It travels as text: nothing is unpickled.

        Raises:
            RankLost: another process has ended.
        """
        if self.size == 1:
            return work()
        text = work().encode() if self.first else b""
        with _lost():
            size = torch.tensor([len(text)])
            distributed.broadcast(size, 0)
            content = torch.tensor(list(text) if self.first else [0] * int(size), dtype=torch.uint8)
            distributed.broadcast(content, 0)
        return bytes(content.tolist()).decode()

    def wait(self) -> None:
        """Until all ranks are here.

        Raises:
            RankLost: another process has ended.
        """
        self.any(False)

    def rows(self, sizes: Sequence[int], split: bool) -> list[slice]:
        """What this rank works on, of each batch of an optimiser step.

        Args:
            sizes: patients of each batch.
            split: every batch is cut into a part for each rank; else a rank has whole batches, one after the other.
        """
        if split:
            bounds = [(size * self.rank // self.size, size * (self.rank + 1) // self.size) for size in sizes]
            return [slice(start, stop) for start, stop in bounds]
        first, last = (len(sizes) * rank // self.size for rank in (self.rank, self.rank + 1))
        return [slice(0, size if first <= number < last else 0) for number, size in enumerate(sizes)]

    def in_turn(self, work: Callable[[], T]) -> T:
        """Rank 0 works first, then the others at once, so that they find what it put on disk.

        Raises:
            RankLost: another process has ended.
        """
        found = work() if self.first else None
        self.wait()
        return work() if found is None else found


ALONE = Ranks()


def flat_gradients(network: nn.Module) -> Tensor:
    """Gradients of all parameters, zero and in place from now on, as views of one tensor that one kernel covers.

    Returns:
        (P,) float32, P numbers in all parameters.
    """
    parameters = list(network.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
    return flat


def started_alone() -> bool:
    """Whether neither torchrun nor `launch` has started several processes of which this is one."""
    return not distributed.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1"


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that torchrun, or `launch`, has started; alone where neither has.

    Of several ranks that fail, the first one raises its error; the others end and say nothing. One
    that lost another says so unless `launch` will.
    """
    if not distributed.is_torchelastic_launched():
        yield ALONE
        return
    # These variables are torchrun's protocol.
    store, rank, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=size)
    try:
        yield Ranks(rank, size, int(os.environ["LOCAL_RANK"]))
        distributed.destroy_process_group()
    except (GradeError, OSError, MemoryError) as error:
        told = isinstance(error, RankLost) and os.environ["TORCHELASTIC_RUN_ID"] == LAUNCHED
        code = INTERRUPTED if isinstance(error, Interrupted) else 1
        if told or not _speaks(store, rank):
            _leave(code)
        atexit.register(_leave, code)
        raise


def _leave(code: int) -> None:
    """End with an exit code, now: threads of a broken group would end with a message of their own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _speaks(store: TCPStore, rank: int) -> bool:
    try:
        return bool(store.compare_set(FAILED, "", str(rank)) == str(rank).encode())
    except RuntimeError:  # the store went with the process that kept it, which has said why
        return False


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            "another process of this training has ended; `grade train --resume` continues after the last epoch."
        ) from error
