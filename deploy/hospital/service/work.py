"""The worker: one process with the model loaded once, one study at a time."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeAlias

from deploy.hospital.service.child import Child
from toolkit.errors import GradeError
from toolkit.files import first_line

_LOCK = "worker.lock"


class ServiceStopped(GradeError):
    """Something that no retry changes: the service ends."""


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
            self._child.pipe.send((images, results))

    def poll(self, seconds: float) -> Outcome | Trouble | None:
        """Wait a while for what it says; None when it says nothing.

        Raises:
            ServiceStopped: the model cannot be opened, which no retry will change.
        """
        try:
            if not self._child.pipe.poll(seconds):
                return None
            said = self._child.pipe.recv()
        except (EOFError, OSError):
            return self._died()
        if isinstance(said, Outcome | Trouble):
            self.busy = False
            return said
        if said:
            raise ServiceStopped(said)
        self.ready = True
        return None

    def stop(self) -> None:
        """End it after the study in hand; whatever it says then is lost, so poll before."""
        self._child.end()

    def _start(self) -> None:
        self._child = Child(_work, self._folder, self._open)
        self.ready = False

    def _died(self) -> Trouble | None:
        ending = self._child.ending()
        self._child.pipe.close()
        was_busy, self.busy = self.busy, False
        if not self.ready and not was_busy:
            raise ServiceStopped(f"the worker ended with {ending} before it had opened the model.")
        self._start()
        return Trouble(f"the worker ended with {ending}", dead=True)


def wait_for_earlier_worker(folder: Path) -> None:
    """See that the worker of a killed service is gone before its study is touched."""
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def _work(folder: Path, open_answerer: OpenAnswerer, parent: Connection) -> None:
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            answer = open_answerer()
        except GradeError as error:
            parent.send(str(error))
            return
        parent.send("")
        with suppress(EOFError):  # the service closed the pipe
            while True:
                images, results = parent.recv()
                parent.send(_answered(answer, images, results))


def _answered(answer: Answerer, images: Path, results: Path) -> Outcome | Trouble:
    try:
        return answer(images, results)
    except (GradeError, OSError, MemoryError) as error:
        return Trouble(first_line(error))
