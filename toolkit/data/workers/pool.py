"""Readers in processes: one dies, and its patient alone is read again; the parent dies, and none is left."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Pipe, wait
from typing import Any, Generic, Self, TypeVar, cast

from toolkit.data.workers.child import READY, Outcome
from toolkit.data.workers.slots import Packed, Slots
from toolkit.data.workers.work import Work
from toolkit.errors import GradeError

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 2  # the second one while nobody else is read, in case memory was short
SPARE = 4  # slots in addition to two for each worker: one is being filled, one waits to be taken
BAD_STARTS = 50  # without a good one in between, that end a cohort; processes that end by themselves count as five
SECONDS = 5.0  # for a process to end by itself
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(eq=False)
class _Job:
    """One item on its way; `reply` comes from its worker, `lost` when there will be none, `done` once it was opened."""

    item: Any
    slot: int | None = None
    endings: list[str] = field(default_factory=list)
    reply: Packed | None = None
    lost: str = ""
    done: Outcome | None = None

    @property
    def over(self) -> bool:
        return bool(self.reply or self.lost or self.done)


class _Worker:
    """A process and the pipe to it; `job` is what it works on."""

    def __init__(self, work: bytes, life: int, file: int) -> None:
        self.pipe, theirs = Pipe()
        numbers = (theirs.fileno(), life, file)
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # Not by `multiprocessing`, whose new processes run the program's main file again.
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "toolkit.data.workers.child", *map(str, numbers)],
            pass_fds=numbers,
            env=os.environ | path | _ONE_THREAD,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,  # a terminal's Ctrl-C does not reach it
        )
        theirs.close()
        self.ready = False
        self.job: _Job | None = None
        with suppress(OSError):  # it has died at once: the pipe says so
            self.pipe.send_bytes(work)

    def ending(self) -> str:
        """Wait for its end, and say what it was."""
        self.pipe.close()
        code = self.process.wait()
        return f"signal {-code}: {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"


class Processes(Generic[Item, Result]):
    """Applies work to items in processes; see `Results`.

    An item whose process dies is tried once more, while no other is worked on; then it is lost, with the reason.

    Args:
        work: what is done with an item.
        items: to work on.
        workers: processes.
    """

    def __init__(self, work: Work[Item, Result], items: Iterable[Item], workers: int) -> None:
        self._work, self._items = work, iter(items)
        self._count = workers
        self._lock = threading.Condition()
        self._ahead: deque[_Job] = deque()  # in the order of the items
        self._waiting: deque[_Job] = deque()
        self._again: deque[_Job] = deque()
        self._crew: list[_Worker] = []
        self._bad_starts = 0
        self._closing = False
        self._failure: Exception | None = None

    @property
    def workers(self) -> int:
        """See `Results`."""
        return self._count

    @workers.setter
    def workers(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> Self:
        self._pickled = pickle.dumps(self._work)
        self._life, self._living = os.pipe()  # every process ends when the end that only this one holds is closed
        self._ear, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        self.slots = Slots(2 * self._count + SPARE, self._wake)
        self._fill(self._count)
        self._thread = threading.Thread(target=self._run, name="readers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._wake()
        self._thread.join()
        os.close(self._living)
        for worker in self._crew:
            worker.pipe.close()
        for worker in self._crew:
            try:
                worker.process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._crew.clear()
        self._ahead.clear()
        self.slots.close()
        with self._lock:
            bell, self._bell = self._bell, -1
        for end in (self._life, self._ear, bell):
            os.close(end)

    def take(self, more: int = 1) -> Result | None:
        """See `Results`.

        Raises:
            GradeError: no process can be started.
        """
        with self._lock:
            if not self._ahead:
                return None
            job = self._ahead.popleft()
            while not job.over and self._failure is None:
                self._lock.wait()
        if not job.over and self._failure is not None:
            raise self._failure
        outcome = self._opened(job)
        self._fill(self._count + more)
        self._wake()
        if outcome.error is not None:
            raise outcome.error
        return cast(Result, outcome.value)

    def finished(self) -> list[Result]:
        """See `Results`."""
        found = []
        for job in self._ahead:
            if not job.over or (outcome := self._opened(job)).error is not None:
                break
            found.append(cast(Result, outcome.value))
        return found

    def _opened(self, job: _Job) -> Outcome:
        if job.done is None:
            with Outcome() as outcome:
                if job.reply is None:
                    outcome.value = self._work.lost(job.item, job.lost)
                else:
                    outcome.value, error = self.slots.unpack(job.reply, job.slot)
                    if error is not None:
                        raise error
            job.done, job.reply = outcome, None
        return job.done

    def _fill(self, most: int) -> None:
        with self._lock:
            jobs = [_Job(item) for item in islice(self._items, max(0, most - len(self._ahead)))]
            self._ahead.extend(jobs)
            self._waiting.extend(jobs)

    def _wake(self) -> None:
        with self._lock, suppress(OSError):  # full: it is awake
            if self._bell >= 0:
                os.write(self._bell, b"!")

    def _run(self) -> None:
        """In a thread of its own: gives out items and hears of results and deaths, whatever the taker does."""
        with Outcome() as outcome:
            while not self._closing:
                with self._lock:
                    self._hand_out()
                for source in wait([self._ear, *(worker.pipe for worker in self._crew)]):
                    if isinstance(source, int):
                        os.read(source, 1 << 12)
                    else:
                        self._hear(next(worker for worker in self._crew if worker.pipe is source))
        with self._lock:
            self._failure = outcome.error
            self._lock.notify_all()

    def _hand_out(self) -> None:
        """Give items to those who are free; hire where items wait."""
        busy = [worker for worker in self._crew if worker.job]
        if any(worker.job and worker.job.endings for worker in busy) or (self._again and busy):
            return
        for worker in [one for one in self._crew if one.ready and not one.job]:
            if not self._again and (not self._waiting or len(busy) >= self._count):
                break
            slot = self.slots.take()
            if slot is None and not self._again and (busy or any(job.over for job in self._ahead)):
                return  # one will be free; without any the arrays come through the pipe
            worker.job = job = (self._again or self._waiting).popleft()
            job.slot = slot
            busy.append(worker)
            with suppress(OSError):  # it is dead, which its pipe says next
                worker.pipe.send((slot, job.item))
            if job.endings:
                return
        missing = min(self._count, len(busy) + len(self._waiting) + len(self._again)) - len(self._crew)
        self._crew += [_Worker(self._pickled, self._life, self.slots.file) for _ in range(missing)]

    def _hear(self, worker: _Worker) -> None:
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            self._gone(worker)
            return
        if said == READY:
            worker.ready, self._bad_starts = True, 0
            return
        with self._lock:
            job, worker.job = worker.job, None
            if job is not None:
                job.reply = said
            self._lock.notify_all()

    def _gone(self, worker: _Worker) -> None:
        self._crew.remove(worker)
        ending, job = worker.ending(), worker.job
        if not worker.ready:
            self._bad_starts += 1 if ending.startswith("signal") else 5
            if self._bad_starts >= BAD_STARTS:
                raise GradeError(
                    f"processes that read patients end as they start ({ending});"
                    ' set readers = "threads" under [predict], or free memory.'
                )
        if job is None:
            return
        if job.slot is not None:
            self.slots.free(job.slot)
        with self._lock:
            job.slot = None
            job.endings.append(ending)
            if len(job.endings) < TRIES:
                self._again.append(job)
            else:
                job.lost = f"the process that read it ended twice ({', then '.join(job.endings)})"
            self._lock.notify_all()
