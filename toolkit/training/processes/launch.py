"""A training's processes on one machine: started, watched, ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing from torch's stubs

from toolkit.errors import INTERRUPTED, RunError, RuntimeUnavailable
from toolkit.machine import cores
from toolkit.training.processes.ranks import FAILED, LAUNCHED

LOOPBACK = "lo"  # the network interface that no other machine reaches
GRACE = 5.0  # seconds that the others have to notice that one failed, and again to obey SIGTERM


def check_devices(count: int) -> None:
    """Refuse more GPUs than there are; a machine without any lends its processor.

    Raises:
        RuntimeUnavailable: it has GPUs, and fewer.
    """
    found = torch.cuda.device_count()
    if 0 < found < count:
        raise RuntimeUnavailable(f"{count} devices were asked for, and {found} GPUs found; lower --devices.")


def launch(command: Sequence[str], count: int) -> int:
    """Run a command in several processes that are the ranks of one training, and wait for all.

    SIGINT and SIGTERM are passed on. When one process fails the others are ended too.

    Args:
        command: program and arguments.
        count: processes on this machine.

    Returns:
        The exit code: 0, or that of the first process that failed; 130 after a Ctrl-C, which others notice as a loss.

    Raises:
        RuntimeUnavailable: fewer GPUs than that are found.
        RunError: a process was killed, and could not say why itself.
    """
    check_devices(count)
    store = _store()
    # The variables that torchrun sets; ranks cannot tell the two apart.
    ours = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "TORCHELASTIC_RUN_ID": LAUNCHED,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "NCCL_NVLS_ENABLE": "0",  # NVLink multicast stays off
        # One machine: nothing that the ranks exchange is open to the network.
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,
    }
    threads = str(max(1, cores() // count))
    common = {"OMP_NUM_THREADS": threads} | os.environ | ours
    # In sessions of their own a Ctrl-C in the terminal reaches this process alone, which passes it on once.
    processes = [
        subprocess.Popen(  # noqa: S603  # this very program
            command, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, start_new_session=True
        )
        for rank in range(count)
    ]
    with _passing_on(processes):
        failed = _first_failure(processes)
        if failed is None:
            return 0
        _end(processes)
    code = processes[failed].returncode
    if code < 0 and not store.check([FAILED]):
        raise RunError(
            f"process {failed + 1} of {count} was ended by {signal.Signals(-code).name}; `grade train --resume`"
            " continues after the last epoch."
        )
    if any(process.returncode == INTERRUPTED for process in processes):
        return INTERRUPTED
    return code if code > 0 else 1


def _store() -> TCPStore:
    """The ranks' store. Left to itself it would listen on every network card, so it is given a socket that does not."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        return TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


def _first_failure(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Which process failed first, a killed one before those that noticed; None when all have ended well."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [(code, number) for number, code in enumerate(codes) if code]
        if failed:
            return min(failed)[1]
        if None not in codes:
            return None
        time.sleep(0.05)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait, then ask, then force."""
    for act in (None, signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in processes if process.poll() is None]
        if act is not None:
            for process in alive:
                process.send_signal(act)
        until = time.monotonic() + GRACE
        while any(process.poll() is None for process in alive) and time.monotonic() < until:
            time.sleep(0.05)


@contextmanager
def _passing_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
