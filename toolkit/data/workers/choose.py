"""Threads or processes: chosen by how many read at once, and for how many patients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from toolkit.config import Readers
from toolkit.data.ahead import Ahead
from toolkit.data.memory import Workspaces
from toolkit.data.workers.pool import Processes
from toolkit.data.workers.work import Results, Work
from toolkit.errors import SettingsError

Item = TypeVar("Item")
Result = TypeVar("Result")

# On 16 cores of a Xeon, ms a patient, threads and processes: 4 workers 56 and 53; 8: 64 and 28; 16: 49 and 17. Threads
# stop at some six cores, where they wait for Python's lock; processes take a second to start.
MOST_THREADS = 4
LEAST_ITEMS = 32


def in_processes(readers: Readers, workers: int, items: int) -> bool:
    """Whether processes read; `auto` takes them for many workers and many patients.

    Args:
        readers: what is asked for.
        workers: how many read at once.
        items: how many patients there are.

    Raises:
        SettingsError: processes are asked for where they cannot be had.
    """
    possible = hasattr(os, "memfd_create")
    if readers == "processes" and not possible:
        raise SettingsError('readers = "processes" needs Linux; write "threads" or "auto".')
    return readers == "processes" or (
        readers == "auto" and possible and workers > MOST_THREADS and items >= LEAST_ITEMS
    )


def working(
    work: Work[Item, Result], items: Sequence[Item], workers: int, readers: Readers = "auto"
) -> Results[Result]:
    """Work on items, some ahead of the one that is taken; to be entered.

    Args:
        work: what is done with an item.
        items: to work on.
        workers: how many at once.
        readers: threads or processes.

    Raises:
        SettingsError: processes are asked for where they cannot be had.
    """
    if in_processes(readers, workers, len(items)):
        return Processes(work, items, workers)
    of_thread = Workspaces()
    return Ahead(lambda item: work(item, of_thread.mine), items, workers)
