"""What a container allows counts, in both versions of control groups, and in every group above the process's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit import machine

CORES = len(os.sched_getaffinity(0))
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups, and a process in the root of version 2."""
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")
    return tmp_path / "cgroup"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_limits_all_of_the_machine(groups: Path) -> None:
    assert (machine.cores(), machine.memory()) == (CORES, MEMORY)
    write(groups / "cpu.max", "max 100000\n")
    write(groups / "memory.max", "max\n")
    assert (machine.cores(), machine.memory()) == (CORES, MEMORY)


@pytest.mark.parametrize(
    ("own", "cpu", "memory"),
    [
        ("0::/\n", "cpu.max", "memory.max"),
        ("0::/slurm/job7\n", "slurm/job7/cpu.max", "slurm/job7/memory.max"),
        ("0::/slurm/job7/step0\n", "slurm/cpu.max", "slurm/job7/memory.max"),  # a limit of a group above
        ("0::/docker/ab12\n", "cpu.max", "memory.max"),  # its path on the host, which a container cannot see
        ("0::/../../x\n", "cpu.max", "memory.max"),
    ],
)
def test_version_2(own: str, cpu: str, memory: str, groups: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text(own)
    write(groups / cpu, "100000 100000\n")
    write(groups / memory, f"{2**30}\n")
    assert (machine.cores(), machine.memory()) == (1, 2**30)


def test_version_1(groups: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("7:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n")
    write(groups / "cpu" / "docker" / "ab" / "cpu.cfs_quota_us", "-1\n")
    write(groups / "cpu" / "docker" / "ab" / "cpu.cfs_period_us", "100000\n")
    write(groups / "memory" / "memory.limit_in_bytes", f"{2**63 - 4096}\n")
    assert (machine.cores(), machine.memory()) == (CORES, MEMORY)
    write(groups / "cpu" / "docker" / "ab" / "cpu.cfs_quota_us", "50000\n")
    write(groups / "memory" / "memory.limit_in_bytes", f"{2**31}\n")
    assert (machine.cores(), machine.memory()) == (1, 2**31)


@pytest.mark.parametrize(("quota", "cores"), [(10_000, 1), (100_000, 1), (150_000, 2), (200_000, 2), (10**9, 64)])
def test_a_part_of_a_core_counts_as_one(quota: int, cores: int, groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    write(groups / "cpu.max", f"{quota} 100000\n")
    assert machine.cores() == cores


@pytest.mark.parametrize(("gib", "readers"), [(8, 13), (0.1, 1), (800, 16)])  # half of 8 GiB, 300 MiB each
def test_readers_have_cores_and_memory(gib: float, readers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.setattr(machine, "memory", lambda: int(gib * 2**30))
    assert machine.most_readers() == readers


def test_versions_of_what_is_installed() -> None:
    found = machine.versions(("numpy", "no-such-distribution", "pydantic"))
    assert list(found) == ["numpy", "pydantic"]
