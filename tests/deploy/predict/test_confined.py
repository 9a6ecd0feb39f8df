"""Prediction where the machine gives less than usual: packages that cannot be written to, a limit of memory."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.data.patients import Cohort

ROOT = Path(__file__).parents[3]


def predict(patient: Path, model: Path, out: Path) -> str:
    """`grade predict` as a line for a shell; `exec`, so that the shell's own place counts."""
    words = (sys.executable, "-m", "cli", "predict", patient, "--model", model, "--out", out)
    return f"cd {shlex.quote(str(ROOT))} && exec {shlex.join(map(str, words))}"


def graded(out: Path) -> bool:
    (patient,) = json.loads((out / "predictions.json").read_text())["patients"]
    return patient["grade"] in ("LGG", "HGG")


def test_packages_and_model_on_a_read_only_disk(cohort: Cohort, exported: Path, tmp_path: Path) -> None:
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a folder read-only")
    places = {Path(sys.prefix), ROOT, exported}
    seal = " && ".join(
        f"mount --bind {place} {place} && mount -o remount,bind,ro {place} && ! touch {place}/x 2> /dev/null"
        for place in map(shlex.quote, map(str, places))
    )
    line = f"{seal} && {predict(cohort.patients[0].folder, exported, tmp_path / 'results')}"
    ended = subprocess.run(["unshare", "-m", "sh", "-c", line], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert graded(tmp_path / "results")


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 1 GiB, version 1 or 2, below our own."""
    own = Path("/proc/self/cgroup").read_text()
    found = re.search(r"^\d+:memory:(.*)$", own, re.MULTILINE)
    above = Path("/sys/fs/cgroup/memory" if found else "/sys/fs/cgroup")
    where = found[1] if found else re.sub(r"(?s).*^0::(.*)$", r"\1", own.strip(), flags=re.MULTILINE)
    folder = above / where.lstrip("/") / f"grade-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if found else "memory.max")).write_text(str(2**30))
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_limit_of_memory_is_kept(cohort: Cohort, exported: Path, group: Path, tmp_path: Path) -> None:
    line = f"echo $$ > {group}/cgroup.procs && {predict(cohort.patients[0].folder, exported, tmp_path / 'results')}"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert graded(tmp_path / "results")
