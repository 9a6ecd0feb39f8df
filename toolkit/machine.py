"""What this process may use of the machine: cores and memory, a container's limits included; installed versions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path, PurePosixPath

DEVICE = r"auto|cpu|cuda(:[0-9]{1,3})?"  # as it is written
READER = 300 * 2**20  # bytes that a patient takes while it is read
MEMORY_SHARE = 0.5  # of what there is, for the readers
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where its control group has a quota.

    A quota of a core and a half counts as two, as in the JVM and in Go.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [float(bound)]
    for group in _groups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")  # version 2
        shares += _share(quota, period)
        shares += _share(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))  # version 1
    return max(1, ceil(min(shares)))


def memory() -> int:
    """Bytes that this process may use: the machine's, or fewer where its control group has a limit."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # versions 2 and 1
            text = _read(group / name)
            if text.isdecimal():  # not the word `max`
                sizes.append(int(text))
    return min(sizes)


def most_readers() -> int:
    """Threads that may read patients at once: one a core, if they have the memory."""
    return max(1, min(cores(), int(MEMORY_SHARE * memory() / READER)))


def versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed, in this order."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, from its own up to the root, of either version.

    Source: cgroups(7); "Control Group v2", kernel documentation.
    """
    for line in _read(_OWN_GROUPS).splitlines() or ["0::/", f"1:{controller}:/"]:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number != "0" and controller not in names.split(","):
            continue
        top = _GROUPS if number == "0" else _GROUPS / controller
        own = PurePosixPath(path.lstrip("/"))
        # A container may be told its path on the host, which it cannot see: then its root has its limits.
        for part in (own, *own.parents) if ".." not in own.parts else (PurePosixPath(),):
            yield top / part


def _share(quota: str, period: str) -> list[float]:
    """Cores of a quota in microseconds a period; empty where there is none: the word `max`, or -1."""
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return []
    return [int(quota) / int(period)]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
