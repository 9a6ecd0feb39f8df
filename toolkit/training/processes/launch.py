"""A training's processes on one machine: forked, watched, ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing from torch's stubs

from toolkit.errors import INTERRUPTED, RunError, RuntimeUnavailable
from toolkit.machine import cores
from toolkit.training.processes.ranks import FAILED, LAUNCHED

LOOPBACK = "lo"  # the network interface that no other machine reaches
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
Handlers = Mapping[signal.Signals, Callable[[int, FrameType | None], Any] | int | None]
GRACE = 5.0  # seconds that the others have to notice that one failed, and again to obey SIGTERM


def check_devices(count: int) -> None:
    """Refuse more GPUs than there are; a machine without any lends its processor.

    Raises:
        RuntimeUnavailable: it has GPUs, and fewer.
    """
    # Without NVML the count itself would start CUDA, which no process survives that is forked later.
    counting = multiprocessing.get_context("fork").Process(target=_count)
    counting.start()
    counting.join()
    found = counting.exitcode or 0
    if 0 < found < count:
        raise RuntimeUnavailable(f"{count} devices were asked for, and {found} GPUs found; lower --devices.")


def _count() -> None:
    os._exit(torch.cuda.device_count())


def launch(work: Callable[[], None], count: int) -> int:
    """Fork this process into the ranks of one training, which find everything loaded, and wait for all.

    CUDA must not have been used yet, and there must be no threads. SIGINT and SIGTERM are passed on. When one process
    fails the others are ended too.

    Args:
        work: what each of them does, from `joined` on; it may end by SystemExit.
        count: processes on this machine.

    Returns:
        The exit code: 0, or that of the first process that failed; 130 after a Ctrl-C, which others notice as a loss.

    Raises:
        RuntimeUnavailable: fewer GPUs than that are found.
        RunError: a process was killed, and could not say why itself.
    """
    check_devices(count)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    # The variables that torchrun sets; ranks cannot tell the two apart.
    ours = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listening.getsockname()[1]),
        "WORLD_SIZE": str(count),
        "TORCHELASTIC_RUN_ID": LAUNCHED,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "NCCL_NVLS_ENABLE": "0",  # NVLink multicast stays off
        # One machine: nothing that the ranks exchange is open to the network.
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,
    }
    context = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = []
    with _passing_on(processes) as before:
        for rank in range(count):
            own = ours | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(context.Process(target=_be_rank, args=(work, listening, own, before)))
            processes[-1].start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        store = _store(listening)
        failed = _first_failure(processes)
        if failed is None:
            return 0
        _end(processes)
    code = processes[failed].exitcode or 0
    if code < 0 and not store.check([FAILED]):
        raise RunError(
            f"process {failed + 1} of {count} was ended by {signal.Signals(-code).name}; `grade train --resume`"
            " continues after the last epoch."
        )
    if any(process.exitcode == INTERRUPTED for process in processes):
        return INTERRUPTED
    return code if code > 0 else 1


def _be_rank(
    work: Callable[[], None],
    listening: socket.socket,
    variables: Mapping[str, str],
    handlers: Handlers,
) -> None:
    os.setsid()  # a Ctrl-C in the terminal reaches the parent alone, which passes it on once
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    listening.close()  # else the store would seem to be there when the parent is gone
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() // int(variables["WORLD_SIZE"])))
    os.environ.update(variables)
    work()


def _store(listening: socket.socket) -> TCPStore:
    """The ranks' store. Left to itself it would listen on every network card, so it is given a socket that does not."""
    port = listening.getsockname()[1]
    return TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


def _first_failure(processes: Sequence[BaseProcess]) -> int | None:
    """Which process failed first, a killed one before those that noticed; None when all have ended well."""
    while True:
        codes = [process.exitcode for process in processes]
        failed = [(code, number) for number, code in enumerate(codes) if code]
        if failed:
            return min(failed)[1]
        if None not in codes:
            return None
        time.sleep(0.05)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Wait, then ask, then force."""
    for act in (None, signal.SIGTERM, signal.SIGKILL):
        if act is not None:
            _signal(processes, act)
        until = time.monotonic() + GRACE
        while any(process.exitcode is None for process in processes) and time.monotonic() < until:
            time.sleep(0.05)


def _signal(processes: Sequence[BaseProcess], number: int) -> None:
    for process in processes:
        if process.pid is not None and process.exitcode is None:
            os.kill(process.pid, number)


@contextmanager
def _passing_on(processes: Sequence[BaseProcess]) -> Iterator[Handlers]:
    """Signals go to the processes once `PASSED_ON` is unblocked; gives the handlers that they had."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        _signal(processes, number)

    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # a process that is just being forked has this handler, too
    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        for number, handler in before.items():
            signal.signal(number, handler)
