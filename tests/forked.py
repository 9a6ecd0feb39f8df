"""`grade` in a process that is forked from the tests' own: what is loaded here would take seconds to load again.

Tests of how the program itself starts begin it as a user does.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import IO

import pytest

from cli.main import run

_FORK = get_context("fork")


class Forked:
    """What the tests use of `subprocess.Popen`; both outputs are pipes, of bytes."""

    def __init__(
        self,
        words: Sequence[str | Path],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        program: Callable[[], None] = run,
    ):
        (out, here), (err, there) = os.pipe(), os.pipe()
        self.stdout: IO[bytes] = os.fdopen(out, "rb")
        self.stderr: IO[bytes] = os.fdopen(err, "rb")
        home = (cwd, dict(os.environ if env is None else env))
        arguments = (program, [*map(str, words)], home, (here, there), (out, err))
        self._process = _FORK.Process(target=_begin, args=arguments)
        self._process.start()
        os.close(here)
        os.close(there)

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("grade", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Both outputs as text, once it has ended; it is killed if it does not."""
        texts: dict[IO[bytes], str] = {}
        readers = [
            threading.Thread(target=lambda pipe=pipe: texts.update({pipe: pipe.read().decode()}))
            for pipe in (self.stdout, self.stderr)
        ]
        with self:
            for reader in readers:
                reader.start()
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise
            for reader in readers:
                reader.join()
        return texts[self.stdout], texts[self.stderr]

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wait()
        self.stdout.close()
        self.stderr.close()


def fork_server(_: object, words: Sequence[bytes | str], kept: Sequence[int]) -> int:
    """Begin the server that `multiprocessing` forks processes from: forked from here, in place of `spawnv_passfds`."""
    return _fork(lambda: exec(words[-1], {}), kept)


class Part:
    """What `Child` and the pool of readers use of `subprocess.Popen`: `python -m MODULE WORDS`, forked from here."""

    def __init__(self, words: Sequence[str], *, pass_fds: Sequence[int], **_: object):
        self._words = words[2:]
        self.pid = _fork(self._run, pass_fds)
        self._code: int | None = None

    def _run(self) -> None:
        os.setsid()
        sys.argv = [*self._words]
        import_module(self._words[0])._main()

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float = 600.0) -> int:
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("grade", timeout)
            time.sleep(0.005)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@contextmanager
def forked_parts() -> Iterator[None]:
    """Parts of the service and readers of patients are forked from here, not started."""
    ours = SimpleNamespace(**vars(subprocess) | {"Popen": Part})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("deploy.hospital.service.child", "toolkit.data.workers.pool"):
            patch.setattr(f"{name}.subprocess", ours)
        yield


def _fork(work: Callable[[], None], kept: Sequence[int]) -> int:
    """A process without what is open here, apart from some of it."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        gc.freeze()  # none of what is here closes, as it is collected, a number that is used again
        for number in {int(file.name) for file in Path("/proc/self/fd").iterdir()} - {0, 1, 2, *kept}:
            with suppress(OSError):  # that of the listing
                os.close(number)
        with suppress(SystemExit):
            work()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def _begin(
    program: Callable[[], None],
    words: list[str],
    home: tuple[Path | None, dict[str, str]],
    outputs: tuple[int, int],
    closed: tuple[int, int],
) -> None:
    cwd, env = home
    os.setsid()
    for end in closed:
        os.close(end)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    sys.stdout, sys.stderr = (os.fdopen(one, "w", 1, encoding="utf-8", closefd=False) for one in (1, 2))
    warnings.resetwarnings()  # here they are printed, not errors
    warnings.showwarning = _print_warning
    os.environ.clear()
    os.environ.update(env)
    if cwd:
        os.chdir(cwd)
    sys.argv = ["grade", *words]
    with suppress(BrokenPipeError):
        program()


def _print_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
