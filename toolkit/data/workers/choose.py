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

# Ms a patient, threads and processes, on 16 virtual cores of a Xeon: 2 workers 67 and 66; 4: 46 and 35; 8: 25 and 24;
# 16: 26 and 11 (`benchmarks/box.py`). Beyond eight, threads wait for Python's lock. Processes take a second to start.
MOST_THREADS = 4
LEAST_ITEMS = 64


def can_share() -> bool:
    """Whether processes can share memory as `slots.py` needs it: on Linux."""
    return hasattr(os, "memfd_create")


def in_processes(readers: Readers, workers: int, items: int) -> bool:
    """Whether processes read; `auto` takes them for many workers and many patients.

    Args:
        readers: what is asked for.
        workers: how many read at once.
        items: how many patients there are.

    Raises:
        SettingsError: processes are asked for where they cannot be had.
    """
    if readers == "processes" and not can_share():
        raise SettingsError('readers = "processes" needs Linux; write "threads" or "auto".')
    return readers == "processes" or (
        readers == "auto" and can_share() and workers > MOST_THREADS and items >= LEAST_ITEMS
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
