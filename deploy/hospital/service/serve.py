"""The service: it keeps reception and worker alive, moves studies from state to state, and sends the answers."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deploy.hospital.queue import ANSWERED, IMAGES, RESULTS, Queue, State, Ticket
from deploy.hospital.service.drops import Drops
from deploy.hospital.service.events import Events
from deploy.hospital.service.inbox import Arrival, Inbox
from deploy.hospital.service.outbox import DROP, Outbox, Sent, next_pause
from deploy.hospital.service.reception import Reception
from deploy.hospital.service.work import OpenAnswerer, Outcome, ServiceStopped, Trouble, Worker, wait_for_earlier_worker
from toolkit.config.service import ServiceSettings
from toolkit.errors import GradeError
from toolkit.files import first_line

PAUSE = 0.1  # seconds between two looks at the folders
_DAY = 86400.0
_HOURLY = 3600.0
_LOCK = "service.lock"


@dataclass
class Health:
    """What the page shows of the service itself.

    Attributes:
        started: seconds since 1970.
        beat: when the service last looked at its folders, by the monotonic clock.
        ready: whether the model is open.
        listening: whether images are received.
        errors: the last ones: seconds since 1970, sentence.
    """

    started: float = field(default_factory=time.time)
    beat: float = field(default_factory=time.monotonic)
    ready: bool = False
    listening: bool = False
    errors: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=20))


@dataclass(frozen=True)
class Job:
    """What a service is to do.

    Attributes:
        settings: see `ServiceSettings`.
        open_answerer: opens the model, in the worker's process.
        model: its fingerprint, for the lines of `service.jsonl`.
        network: whether to receive by DICOM.
        watch: folder whose contents are taken as studies; None for none.
        labels: whether to note Patient IDs for the page.
        say: takes a line for the log, without names.
        origin: where the model comes from, in a sentence, if that must be said; else empty.
    """

    settings: ServiceSettings
    open_answerer: OpenAnswerer
    model: str
    network: bool = True
    watch: Path | None = None
    labels: bool = True
    say: Callable[[str], None] = lambda _: None
    origin: str = ""


class Service:
    """One service on one folder.

    Args:
        job: what to do.

    Raises:
        GradeError: the folder cannot be made, or another service works on it.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.settings = job, job.settings
        self.queue = Queue(job.settings.folder)
        self.health = Health()
        self._stopping = threading.Event()
        self._guard = threading.Lock()  # the sending thread writes lines, too
        self._inbox = Inbox(self.queue, job.settings.quiet)
        self._running = ""
        self._cleaned = 0.0

    def stop(self) -> None:
        """Ask the service to end after the study in hand; may be called from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until `stop` is called.

        Raises:
            GradeError: another service has the folder, the port is taken, or the model cannot be opened.
        """
        with ExitStack() as stack:
            self._claim(stack)
            self._events = Events(self.queue.folder, self.job.model)
            wait_for_earlier_worker(self.queue.folder)
            self._recover()
            self._worker = Worker(self.queue.folder, self.job.open_answerer)
            stack.callback(self._worker.stop)
            answers = None
            self._drops = None
            if self.job.watch is not None:
                self._drops = Drops(self.job.watch, self.queue, self.settings, self.job.labels)
                answers = self._drops.answers
            self._outbox = Outbox(self.queue, self.settings, answers, self._sent_to)
            stack.callback(self._outbox.close)
            if self.job.network:
                self._reception = Reception(self.settings, self.job.labels)
                stack.callback(self._reception.stop)
            while not self._stopping.is_set():
                self._guarded(self._turn)
            while self._running:  # the study in hand is finished
                self._guarded(self._listen_to_worker)

    def _guarded(self, step: Callable[[], None]) -> None:
        """A full disk does not end the service: what was not written is done again by a later turn."""
        try:
            step()
        except ServiceStopped:
            raise
        except (GradeError, OSError) as error:
            self._trouble(first_line(error))
            self._stopping.wait(1.0)

    def _turn(self) -> None:
        self.health.beat = time.monotonic()
        if self.job.network:
            self._reception.keep_alive(self._trouble)
            self.health.listening = self._reception.alive
        if self._drops is not None:
            self._guarded(partial(self._drops.take, self._trouble))  # without the folder, the rest continues
        self._find_orphans()
        busy = frozenset(filter(None, (self._running, self._outbox.busy)))
        self._inbox.complete(busy, self._arrived)
        self._listen_to_worker()
        self._give_work()
        self._send_answers()
        if time.monotonic() - self._cleaned > _HOURLY or not self._cleaned:
            self._delete_old()
            self._cleaned = time.monotonic()

    def _claim(self, stack: ExitStack) -> None:
        lock = stack.enter_context((self.queue.folder / _LOCK).open("ab"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GradeError(
                f"another service works on {self.queue.folder}; stop it, or set hospital.folder."
            ) from None

    def _recover(self) -> None:
        """What a killed service left."""
        self.queue.empty_trash()
        self._find_orphans()

    def _find_orphans(self) -> None:
        """Studies that count as running and are in nobody's hands."""
        for key in self.queue.keys("running"):
            if key != self._running:
                self._try_again(key, self.queue.ticket("running", key), "the service was cut off at this study")

    def _arrived(self, key: str, arrival: Arrival, ticket: Ticket) -> None:
        event = "repeated" if arrival == "repeated" else "received"
        self._note(event, key, images=ticket.images, sender=ticket.sender, again=arrival == "reopened")
        self.job.say(f"study {key} {arrival}: {ticket.images} images from {ticket.sender}")

    def _give_work(self) -> None:
        if self._running or self._stopping.is_set() or not self._worker.ready or self._worker.busy:
            return
        waiting = self.queue.keys("ready")
        if not waiting:
            return
        key = waiting[0]
        ticket = self.queue.ticket("ready", key)
        begun = 0 if ticket.state == "failed" else ticket.attempts  # moved here by hand: a new beginning
        self.queue.move(key, "ready", "running", ticket.model_copy(update={"attempts": begun + 1, "reason": ""}))
        self._running = key
        folder = self.queue.path("running", key)
        shutil.rmtree(folder / RESULTS, ignore_errors=True)
        self._worker.give(folder / IMAGES, folder / RESULTS)

    def _listen_to_worker(self) -> None:
        said = self._worker.poll(PAUSE)
        self.health.ready = self._worker.ready
        if said is None:
            return
        key, self._running = self._running, ""
        if not key:
            self._trouble(said.sentence if isinstance(said, Trouble) else "the worker answered without a study")
            return
        ticket = self.queue.ticket("running", key).model_copy(update={"seconds": round(self._worker.seconds, 2)})
        if isinstance(said, Trouble):
            self._try_again(key, ticket, said.sentence)
        else:
            self._answered(key, ticket, said)

    def _answered(self, key: str, ticket: Ticket, outcome: Outcome) -> None:
        state: State = "done" if outcome.grade else "refused"
        unsent = (*self.settings.destinations, *((DROP,) if ticket.drop else ()))
        changes = {**outcome._asdict(), "unsent": unsent, "tries": 0, "next_try": 0.0}
        facts = {"grade": outcome.grade, "probability": outcome.probability, "verdict": outcome.verdict}
        self._note("answered", key, **facts, refused=state == "refused", seconds=ticket.seconds)
        self.queue.move(key, "running", state, ticket.model_copy(update=changes))
        self.job.say(f"study {key} {outcome.grade or 'refused'} in {ticket.seconds:.1f} s")

    def _try_again(self, key: str, ticket: Ticket, why: str) -> None:
        self._trouble(f"study {key}, attempt {ticket.attempts}: {why}")
        if ticket.attempts < self.settings.attempts:
            self.queue.move(key, "running", "ready", ticket)
        else:
            self._give_up(key, "running", ticket, why)

    def _give_up(self, key: str, state: State, ticket: Ticket, why: str) -> None:
        self._note("failed", key, stage=state, attempts=ticket.attempts, tries=ticket.tries)
        self.queue.move(key, state, "failed", ticket.model_copy(update={"reason": why}))
        self.job.say(f"study {key} failed: given up")

    def _send_answers(self) -> None:
        sent = self._outbox.finished()
        if sent is not None:
            self._settle(sent)
        if self._outbox.busy:
            return
        now = time.time()
        for state in ANSWERED:
            for key in self.queue.keys(state):
                ticket = self.queue.ticket(state, key)
                if ticket.unsent and ticket.next_try <= now:
                    self._outbox.begin(key, state, ticket)
                    return

    def _settle(self, sent: Sent) -> None:
        ticket = self.queue.ticket(sent.state, sent.key)
        left = tuple(name for name in ticket.unsent if name not in sent.reached)
        if not sent.why:
            self.queue.write(sent.state, sent.key, ticket.model_copy(update={"unsent": left, "tries": 0}))
            return
        self._trouble(f"study {sent.key} not sent: {sent.why}")
        tries = ticket.tries + 1
        pause = next_pause(self.settings, tries)
        ticket = ticket.model_copy(update={"unsent": left, "tries": tries, "next_try": time.time() + pause})
        if tries < self.settings.send_attempts:
            self.queue.write(sent.state, sent.key, ticket)
        else:
            self._give_up(sent.key, sent.state, ticket, sent.why)

    def _sent_to(self, key: str, name: str, objects: int) -> None:
        self._note("sent", key, destination=name, objects=objects)
        self.job.say(f"study {key} sent to {name}: {objects} objects")

    def _delete_old(self) -> None:
        limit = time.time() - self.settings.keep_days * _DAY
        states: tuple[State, ...] = (*ANSWERED, "failed")
        for state in states:
            for key in self.queue.keys(state):
                ticket = self.queue.ticket(state, key)
                since = ticket.since or self.queue.path(state, key).stat().st_mtime
                if since < limit and key != self._outbox.busy:
                    self._note("deleted", key, state=state, images=ticket.images)
                    self.queue.discard(state, key)

    def _note(self, event: str, key: str, **facts: object) -> None:
        with self._guard:
            self._events.note(event, key, **facts)

    def _trouble(self, sentence: str) -> None:
        if not self.health.errors or self.health.errors[-1][1] != sentence:
            self.job.say(sentence)
        self.health.errors.append((time.time(), sentence))
