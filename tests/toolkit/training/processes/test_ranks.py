from __future__ import annotations

import copy
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest
import torch

from toolkit.errors import GradeError, RunError, RuntimeUnavailable
from toolkit.training.processes.launch import check_devices, launch
from toolkit.training.processes.ranks import ALONE, Ranks, flat_gradients, joined


def launched(work: Callable[[Ranks], None], count: int = 2) -> int:
    """Each process is a rank; what it prints is the test's."""

    def one() -> None:
        with joined() as ranks:
            work(ranks)

    return launch(one, count)


def test_alone_everything_is_as_it_was() -> None:
    tensor = torch.ones(3)
    ALONE.sum([tensor])
    assert torch.equal(tensor, torch.ones(3))
    assert [ALONE.any(flag) for flag in (True, False)] == [True, False]
    assert ALONE.lead(lambda: "a") == ALONE.in_turn(lambda: "a") == "a"
    assert ALONE.first


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("ranks, sizes", [(1, [4, 4]), (2, [4, 4]), (2, [4, 5]), (3, [4, 4, 3, 6]), (2, [4])])
def test_every_patient_of_a_step_is_on_one_rank(split: bool, ranks: int, sizes: list[int]) -> None:
    parts = [Ranks(rank, ranks).rows(sizes, split) for rank in range(ranks)]
    for number, size in enumerate(sizes):
        rows = [i for part in parts for i in range(size)[part[number]]]
        assert rows == list(range(size))
    if split:
        assert all(range(size)[rows] for part in parts for size, rows in zip(sizes, part, strict=True))


def test_ranks_agree(capfd: pytest.CaptureFixture[str]) -> None:
    def work(ranks: Ranks) -> None:
        tensors = [torch.full((2, 3), 1.0 + ranks.rank), torch.arange(4.0) * ranks.rank]
        ranks.sum(tensors)
        assert torch.equal(tensors[0], torch.full((2, 3), 3.0))
        assert torch.equal(tensors[1], torch.arange(4.0))
        assert ranks.any(ranks.rank == 1)
        assert not ranks.any(False)
        assert ranks.lead(lambda: f"Ünter {ranks.rank}" * 99) == "Ünter 0" * 99
        assert ranks.in_turn(lambda: ranks.rank) == ranks.rank
        assert (ranks.size, ranks.local) == (2, ranks.rank)
        os.write(1, b"well ")  # in one piece

    assert launched(work) == 0
    assert capfd.readouterr().out.split() == ["well", "well"]


@pytest.mark.parametrize("who", [(1,), (0,), (0, 1)])
def test_one_true_error(who: tuple[int, ...], capfd: pytest.CaptureFixture[str]) -> None:
    """The rank that fails says why; one that waits for it says nothing, nor does a second one with the same error."""

    def work(ranks: Ranks) -> None:
        if ranks.rank in who:
            raise GradeError("the cohort is empty.")
        ranks.wait()

    def reporting() -> None:
        try:
            with joined() as ranks:
                work(ranks)
        except GradeError as error:
            sys.exit(f"error: {error}")

    assert launch(reporting, 2) == 1
    assert capfd.readouterr().err.split("\n") == ["error: the cohort is empty.", ""]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all(rank: int, capfd: pytest.CaptureFixture[str]) -> None:
    def work(ranks: Ranks) -> None:
        ranks.wait()
        if ranks.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.wait()

    with pytest.raises(RunError, match=rf"process {rank + 1} of 2 was ended by SIGKILL; `grade train --resume`"):
        launched(work)
    assert capfd.readouterr().err == ""


def test_a_rank_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(ranks: Ranks) -> None:
        if ranks.rank == 1:
            sys.exit(4)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    monkeypatch.setattr("toolkit.training.processes.launch.GRACE", 1)
    assert launched(work) == 4


def test_a_rank_obeys_signals_again(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """It is forked where they are blocked and passed on: neither is left to it."""

    def work(ranks: Ranks) -> None:
        ranks.wait()
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    monkeypatch.setattr("toolkit.training.processes.launch.GRACE", 1)
    with pytest.raises(RunError, match="process 2 of 2 was ended by SIGTERM"):
        launched(work)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert capfd.readouterr().err == ""


def test_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeUnavailable, match="2 devices were asked for, and 1 GPUs found"):
        check_devices(2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_devices(2)  # of the processor there is enough


def test_gradients_lie_in_one_tensor() -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 3), torch.nn.BatchNorm3d(3))
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    plain = copy.deepcopy(network)
    flat = flat_gradients(network)
    scans = torch.rand(2, 2, 4, 4, 4)
    for net in (network, plain):
        (net(scans) ** 3).sum().backward()
    for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad)
        assert mine.grad.stride() == mine.stride()
    assert flat.shape == (sum(p.numel() for p in plain.parameters()),)
    torch.testing.assert_close(flat.norm() ** 2, sum(((p.grad**2).sum() for p in plain.parameters()), torch.zeros(())))
    flat.zero_()
    assert not any(p.grad.any() for p in network.parameters() if p.grad is not None)
