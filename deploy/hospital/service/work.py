"""The worker: one process with the model loaded once, one study at a time."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeAlias

from toolkit.errors import GradeError
from toolkit.files import first_line

_LOCK = "worker.lock"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STOP: None = None


class Outcome(NamedTuple):
    """What the worker says of one study.

    Attributes:
        grade: `LGG` or `HGG`; None when refused.
        probability: calibrated P(HGG); None when refused.
        verdict: None when refused.
        reason: why it was refused; empty when it was graded.
    """

    grade: str | None
    probability: float | None
    verdict: str | None
    reason: str


class Trouble(NamedTuple):
    """A study that could not be answered this time; `dead` when the process is gone."""

    sentence: str
    dead: bool = False


Answerer: TypeAlias = Callable[[Path, Path], Outcome]  # folder of images, folder for the objects of the answer
OpenAnswerer: TypeAlias = Callable[[], Answerer]  # called once, in the worker's process


class Worker:
    """The worker's process, from outside. A study on which it dies does not take the service with it.

    Args:
        folder: of the service.
        open_answerer: can be sent to another process, such as a function of a module or a `partial` of one.
    """

    def __init__(self, folder: Path, open_answerer: OpenAnswerer) -> None:
        self._folder, self._open = folder, open_answerer
        self._began = 0.0
        self.ready = False
        self.busy = False
        self._start()

    @property
    def seconds(self) -> float:
        """Since the study in hand was given."""
        return time.monotonic() - self._began

    def give(self, images: Path, results: Path) -> None:
        """Hand over a study."""
        self._began, self.busy = time.monotonic(), True
        with suppress(OSError):  # it has just died: the next `poll` says so
            self._pipe.send((images, results))

    def poll(self, seconds: float) -> Outcome | Trouble | None:
        """Wait a while for what it says; None when it says nothing.

        Raises:
            GradeError: the model cannot be opened, which no retry will change.
        """
        try:
            if not self._pipe.poll(seconds):
                return None
            said = self._pipe.recv()
        except (EOFError, OSError):
            return self._died()
        if isinstance(said, Outcome | Trouble):
            self.busy = False
            return said
        if said:
            raise GradeError(said)
        self.ready = True
        return None

    def stop(self) -> None:
        """End it after the study in hand; whatever it says then is lost, so poll before."""
        with suppress(OSError):
            self._pipe.send(_STOP)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(target=_work, args=(self._folder, self._open, child), daemon=True)
        self._process.start()
        child.close()
        self.ready = False

    def _died(self) -> Trouble | None:
        self._process.join()
        code = self._process.exitcode or 0
        self._pipe.close()
        was_busy, self.busy = self.busy, False
        if not self.ready and not was_busy:
            raise GradeError(f"the worker ended with {_ending(code)} before it had opened the model.")
        self._start()
        return Trouble(f"the worker ended with {_ending(code)}", dead=True)


def wait_for_earlier_worker(folder: Path) -> None:
    """See that the worker of a killed service is gone before its study is touched."""
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def die_with_parent(parent: int) -> None:
    """End this process when the one that started it is killed (Linux).

    Args:
        parent: its id.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _work(folder: Path, open_answerer: OpenAnswerer, parent: Connection) -> None:
    die_with_parent(os.getppid())
    os.setpgrp()  # Ctrl-C in a terminal is for the service alone, which lets the study in hand be finished
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            answer = open_answerer()
        except GradeError as error:
            parent.send(str(error))
            return
        parent.send("")
        with suppress(EOFError):
            while (job := parent.recv()) is not _STOP:
                parent.send(_answered(answer, *job))


def _answered(answer: Answerer, images: Path, results: Path) -> Outcome | Trouble:
    try:
        return answer(images, results)
    except (GradeError, OSError, MemoryError) as error:
        return Trouble(first_line(error))
