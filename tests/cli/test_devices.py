import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SMALL = (
    *("--set", "training.device=cpu"),
    *("--set", "training.batch_size=2"),
    *("--set", "training.accumulation=2"),
    "--allow-conflicts",
)
# One thread: with batches of two even the order of a convolution's sums shows after two steps of AdamW.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.slow


def start(project, *words):
    settings = () if "--resume" in words else SMALL
    return subprocess.Popen(
        (sys.executable, "-m", "cli", "train", *settings, *words),
        cwd=project,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, seconds=120):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, " ".join(err.split())


def logits(project, name):
    with (project / "runs" / name / "validation.csv").open() as opened:
        return np.array([(row["logit_lgg"], row["logit_hgg"]) for row in csv.DictReader(opened)], float)


def losses(project, name):
    with (project / "runs" / name / "steps.csv").open() as opened:
        return np.array([row["loss"] for row in csv.DictReader(opened)], float)


@pytest.fixture
def one_thread():
    """This program computes as the started ones do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_two_processes_train_as_one_does(project, one_thread, grade):
    """Same patients in each step, same statistics, same dropout; what remains is the order of float sums."""
    code, _, err = grade("train", *SMALL, "--name", "one")
    assert code == 0, err
    code, out, err = finish(start(project, "--name", "two", "--devices", "2"))
    assert code == 0, err
    assert "2 processes share each optimiser step, which stays at 4 patients" in err
    assert out.count("Stability") == err.count("run: ") == 1
    np.testing.assert_allclose(losses(project, "two"), losses(project, "one"), atol=1e-4)
    np.testing.assert_allclose(logits(project, "two"), logits(project, "one"), atol=1e-4)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "cli")
    done = subprocess.run(
        (*torchrun, "train", *SMALL, "--name", "torchrun"),
        cwd=project,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(logits(project, "torchrun"), logits(project, "one"), atol=1e-4)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for_epoch(project, name, process):
    until = time.monotonic() + 60
    while not (project / "runs" / name / "history.csv").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_killed_process_an_interrupt_and_one_process_that_goes_on(project):
    many = ("--set", "training.epochs=300", "--set", "training.min_epochs=300")
    process = start(project, "--name", "cut", "--devices", "2", *many)
    wait_for_epoch(project, "cut", process)
    before = time.monotonic()
    os.kill(children(process)[1], signal.SIGKILL)
    code, _, err = finish(process)
    assert time.monotonic() - before < 30
    assert code == 1
    assert err.count("error:") == 1
    assert "error: process 2 of 2 was ended by SIGKILL; `grade train --resume` continues after the last epoch." in err
    assert "Traceback" not in err

    for devices in ("2", "1"):  # the other number of processes continues as well
        epochs = epochs_of(project)
        process = start(project, "--resume", "--name", "cut", "--devices", devices)
        until = time.monotonic() + 60
        while epochs_of(project) <= epochs:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
        assert code == 130
        assert f"Continuing after epoch {epochs}." in err
        assert err.count("interrupted: stopped after epoch") == 1
        assert "error:" not in err


def epochs_of(project):
    return len((project / "runs" / "cut" / "history.csv").read_text().splitlines()) - 1


def test_what_all_processes_find_is_said_once(project):
    code, _, err = finish(start(project, "--devices", "2", "--set", "training.accumulation=1"))
    assert code == 1
    assert err.count("error:") == 1
    assert "has 1 batch, too few for 2 processes" in err


def test_folds_are_dealt_to_processes(project, grade):
    code, _, err = grade("train", "--folds", "2", "--name", "cv", "--devices", "2")
    assert code == 0, err
    code, _, err = grade("train", "--folds", "2", "--name", "again")
    assert code == 0, err
    np.testing.assert_allclose(logits(project, "cv"), logits(project, "again"), atol=1e-4)
