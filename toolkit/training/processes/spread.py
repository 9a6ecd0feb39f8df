"""Whole trainings at once, each in its own process, spread over the GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

import torch

from toolkit.errors import Interrupted
from toolkit.machine import cores
from toolkit.training.processes.interrupt import stop_on_interrupt
from toolkit.training.processes.ranks import Ranks

T = TypeVar("T")

LOADED = "toolkit.training.loaded"

_free: list[SimpleQueue[int]] = []  # in a process of the pool: numbers of the GPUs, one for each training at once


@dataclass(frozen=True)
class Spread:
    """How many trainings at once.

    Attributes:
        jobs: processes; 1: everything happens in this one.
        devices: GPUs that they are spread over.
    """

    jobs: int = 1
    devices: int = 1


IN_THIS_PROCESS = Spread()


def spread(
    work: Callable[[T, Ranks], str | None],
    items: Sequence[T],
    over: Spread,
    on_end: Callable[[T, str | None], None],
) -> None:
    """Work on all items, at most `over.jobs` at once.

    Args:
        work: importable, with what pickles; is told its GPU, and returns the sentence of what made it fail.
        items: what to work on.
        over: how many at once.
        on_end: called here as each one ends, with what `work` returned.

    Raises:
        Interrupted: SIGINT; it has reached every process, and each has stopped after its step.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([LOADED])
    free = context.SimpleQueue()
    for job in range(over.jobs):
        free.put(job % over.devices)
    threads = max(1, cores() // over.jobs)
    # A process per training gives all its GPU memory back.
    pool = ProcessPoolExecutor(over.jobs, context, initializer=_begin, initargs=(free, threads), max_tasks_per_child=1)
    with stop_on_interrupt() as stop, pool:
        futures: dict[Future[str | None], T] = {pool.submit(_on_free_device, work, item): item for item in items}
        for future in as_completed(futures):
            if stop.is_set() or future.exception() is not None:
                pool.shutdown(cancel_futures=True)
                raise future.exception() or Interrupted("stopped; the same command continues.")
            on_end(futures[future], future.result())


def _begin(free: SimpleQueue[int], threads: int) -> None:
    _free.append(free)
    torch.set_num_threads(threads)


def _on_free_device(work: Callable[[T, Ranks], str | None], item: T) -> str | None:
    device = _free[0].get()
    try:
        return work(item, Ranks(local=device))
    finally:
        _free[0].put(device)
