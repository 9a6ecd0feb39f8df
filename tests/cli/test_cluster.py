"""`grade predict --cluster`."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.results.audit import verify_audit

GRADED = 36  # so many that a kill after the first few comes before the last


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to its end
def test_a_cohort_on_a_cluster_of_this_machine_whose_driver_is_killed(project, made, grade):
    pytest.importorskip("ray")
    (project / "model").symlink_to(made / "model")
    for number in range(12, GRADED):
        here = project / "cohort" / "HGG" / f"p{number % 12 // 2 * 2 + 1:02}"
        shutil.copytree(here, here.with_name(f"q{number:02}"))
    next((project / "cohort/HGG/p01").glob("*_t2.nii*")).unlink()
    words = ("predict", "cohort", "--cluster", "local", "--device", "cpu", "--batch-size", "1")
    first = cut_off(project, words)
    code, out, err = grade(*words, "--resume")
    assert code == 3, err
    text = " ".join(err.split())
    assert "On Ray on this machine alone: 1 node." in text
    kept = len(first - {"p01"})  # a refused patient is tried again
    assert f"{GRADED - 1} graded, 1 refused, 0 retried; {GRADED - kept} in" in text
    assert f"{kept} patients were graded by an earlier call and are kept" in text
    assert "t2 missing" in " ".join(out.split())

    assert grade("predict", "cohort", "--out", "alone", "--device", "cpu")[0] == 3
    found, wanted = (json.loads((project / name / "predictions.json").read_text()) for name in ("results", "alone"))
    assert found.keys() == wanted.keys()
    for ours, theirs in zip(found["patients"], wanted["patients"], strict=True):
        numbers = {name: ours.pop(name) for name in ("probability", "distance")}
        assert numbers == pytest.approx({name: theirs.pop(name) for name in numbers}, abs=1e-6)
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    verify_audit(project / "results/audit.jsonl")


def cut_off(project, words):
    """Kill the command once some are graded; who had been then. What it started ends with it."""
    journal = project / "results" / "records.jsonl"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        (sys.executable, "-m", "cli", *words),
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as one:
        until = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
            assert one.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        started = psutil.Process(one.pid).children(recursive=True)
        left = [child for child in started if not child.cmdline()[0].endswith("Agent")]  # those take Ray a minute
        one.kill()
    _, still = psutil.wait_procs(left, 30)
    assert not [process for process in still if process.status() != psutil.STATUS_ZOMBIE]
    graded = {json.loads(line)["record"]["patient"] for line in journal.read_text().splitlines()}
    assert 4 <= len(graded) < GRADED
    return graded


def test_pages_are_not_made_on_a_cluster(project, grade):
    code, _, err = grade("predict", "cohort", "--cluster", "auto", "--report")
    assert code == 2
    assert "--report needs the images at hand" in " ".join(err.split())


def test_without_ray_the_extra_is_named(project, grade, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = grade("predict", "cohort", "--cluster", "auto")
    assert code == 1
    assert "this needs the package ray; pip install 'glioma-grade[cluster]'" in " ".join(err.split())
