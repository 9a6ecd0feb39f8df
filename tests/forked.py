"""`grade` in a process that is forked from the tests' own: what is loaded here would take seconds to load again.

Tests of how the program itself starts begin it as a user does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import IO

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
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8") for number in (1, 2))
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
