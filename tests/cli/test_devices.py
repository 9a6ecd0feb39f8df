import csv
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.conftest import Grade
from tests.forked import Forked

SMALL = (
    *("--set", "training.device=cpu"),
    *("--set", "training.batch_size=2"),
    *("--set", "training.accumulation=2"),
    "--allow-conflicts",
)
# torchrun waits for what its script returns, which `grade` leaves by its exit code.
SCRIPT = """
from cli.main import run

try:
    run()
except SystemExit as ended:
    if ended.code:
        raise RuntimeError(ended.code) from ended
"""
pytestmark = pytest.mark.slow


def start(project, *words):
    settings = () if "--resume" in words else SMALL
    return Forked(("train", *settings, *words), cwd=project)


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


def torchrun():
    """`torchrun`, as docs/cluster.md has it; its processes are forked from this one."""
    import torch.distributed.run

    torch.distributed.run.main(sys.argv[1:])


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
    (project / "grade.py").write_text(SCRIPT)
    words = ("--nproc-per-node", "2", "--start-method", "fork", "--run-path", project / "grade.py")
    code, _, err = finish(Forked((*words, "train", *SMALL, "--name", "torchrun"), project, program=torchrun))
    assert code == 0, err
    np.testing.assert_allclose(logits(project, "torchrun"), logits(project, "one"), atol=1e-4)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def epochs_of(project):
    history = project / "runs" / "cut" / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.exists() else 0


def wait_for_epochs(project, epochs, process=None):
    until = time.monotonic() + 120
    while epochs_of(project) < epochs:
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_killed_process_an_interrupt_and_one_process_that_goes_on(project, one_thread, grade):
    many = ("--set", "training.epochs=300", "--set", "training.min_epochs=300")
    process = start(project, "--name", "cut", "--devices", "2", *many)
    wait_for_epochs(project, 1, process)
    before = time.monotonic()
    os.kill(children(process)[1], signal.SIGKILL)
    code, _, err = finish(process)
    assert time.monotonic() - before < 30
    assert code == 1
    assert err.count("error:") == 1
    assert "error: process 2 of 2 was ended by SIGKILL; `grade train --resume` continues after the last epoch." in err
    assert "Traceback" not in err

    epochs = epochs_of(project)
    process = start(project, "--resume", "--name", "cut", "--devices", "2")
    wait_for_epochs(project, epochs + 1, process)
    process.send_signal(signal.SIGINT)
    stopped_once(epochs, *finish(process))

    epochs = epochs_of(project)  # one process continues as well
    waiting = threading.Thread(target=interrupt_this_program, args=(project, epochs + 1))
    waiting.start()
    code, out, err = grade("train", "--resume", "--name", "cut")
    waiting.join()
    stopped_once(epochs, code, out, " ".join(err.split()))


def interrupt_this_program(project, epochs):
    wait_for_epochs(project, epochs)
    os.kill(os.getpid(), signal.SIGINT)


def stopped_once(epochs, code, out, err):
    assert code == 130, err
    assert f"Continuing after epoch {epochs}." in err
    assert err.count("interrupted: stopped after epoch") == 1
    assert "error:" not in err


def test_what_all_processes_find_is_said_once(project, capfd, monkeypatch):
    asked, this = [], os.getpid()
    there = torch.cuda.is_available

    def is_available():
        if os.getpid() == this:
            asked.append(True)
        return there()

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    code, _, err = Grade(capfd)("train", *SMALL, "--devices", "2", "--set", "training.accumulation=1")
    assert code == 1
    assert err.count("error:") == 1
    assert "has 1 batch, too few for 2 processes" in " ".join(err.split())
    assert not asked  # that alone starts CUDA, which no process survives that is forked later


def test_a_dry_run_says_what_several_processes_cannot_share(grade, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("train", "--dry-run", "--devices", 2, "--set", "training.device=cpu", "--set", "training.accumulation=1")
    code, _, said = grade(*words)
    assert code == 1
    assert "an optimiser step has 1 batch, too few for 2 processes" in " ".join(said.split())
    assert list(tmp_path.iterdir()) == []
