"""Folders as states. A study is a folder; an atomic rename takes it from one state to the next.

    incoming/KEY/images/*.dcm     being received
    ready/KEY/                    complete, waiting for the worker
    running/KEY/                  in the worker's hands
    done/KEY/results/*.dcm        graded; the ticket says where the answer still has to be sent
    refused/KEY/results/*.dcm     answered with the reason
    failed/KEY/                   given up, the reason in the ticket; `mv failed/KEY ready/` tries it again
    locks/                        one of them is held while images come into incoming/KEY

KEY is a hash of the Study Instance UID: names of folders tell nobody's name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from toolkit.errors import GradeError
from toolkit.files import write_file
from toolkit.frozen import Frozen
from toolkit.plain import read_bytes

State = Literal["incoming", "ready", "running", "done", "refused", "failed"]
STATES: tuple[State, ...] = get_args(State)
ANSWERED: tuple[State, ...] = ("done", "refused")
IMAGES, RESULTS, TICKET = "images", "results", "ticket.json"
_LOCKS, _TRASH = "locks", ".trash"
_MODE = 0o700


class Ticket(Frozen):
    """What is known of a study on its way.

    Attributes:
        sender: AE title that sent its first image, or `folder`.
        label: Patient ID, for the status page; empty with --no-phi.
        images: received, when it became complete.
        since: when it came into its state, seconds since 1970.
        completed: when it became complete, seconds since 1970.
        attempts: how often the worker took it up.
        state: where the ticket was last written.
        grade: `LGG` or `HGG`; None when refused or not answered yet.
        probability: calibrated P(HGG).
        verdict: of the answer.
        reason: why it was refused or given up.
        seconds: that the worker took.
        unsent: destinations that do not have the answer yet.
        tries: how often sending was tried in vain.
        next_try: not before, seconds since 1970.
        drop: name of the folder or archive that it was dropped as; empty when it came over the network.
    """

    sender: str = ""
    label: str = ""
    images: int = 0
    since: float = 0.0
    completed: float = 0.0
    attempts: int = 0
    state: State = "incoming"
    grade: str | None = None
    probability: float | None = None
    verdict: str | None = None
    reason: str = ""
    seconds: float = 0.0
    unsent: tuple[str, ...] = ()
    tries: int = 0
    next_try: float = 0.0
    drop: str = ""


def study_key(study: str) -> str:
    """The name of a study's folder, from its Study Instance UID."""
    return hashlib.sha256(study.encode()).hexdigest()[:32]


class Queue:
    """The folders of a service, made where they are missing, for their owner alone.

    Args:
        folder: that holds them.

    Raises:
        GradeError: they cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for path in (folder, *(folder / name for name in (*STATES, _LOCKS, _TRASH))):
                path.mkdir(mode=_MODE, parents=True, exist_ok=True)
                path.chmod(_MODE)
        except OSError as error:
            raise GradeError(f"{folder} cannot be made: {error.strerror}; set hospital.folder.") from error

    def path(self, state: State, key: str) -> Path:
        """Where a study of a state is."""
        return self.folder / state / key

    def keys(self, state: State) -> list[str]:
        """Studies of a state, the longest waiting first."""
        found = []
        with os.scandir(self.folder / state) as entries:
            for entry in entries:
                try:
                    found.append((entry.stat().st_mtime_ns, entry.name))
                except FileNotFoundError:  # moved on
                    continue
        return [key for _, key in sorted(found)]

    def state_of(self, key: str) -> State | None:
        """The state of a study apart from what is being received of it."""
        return next((state for state in STATES[1:] if self.path(state, key).is_dir()), None)

    def ticket(self, state: State, key: str) -> Ticket:
        """What is known of a study; a fresh ticket where it has none or a spoiled one."""
        try:
            return Ticket.model_validate_json(read_bytes(self.path(state, key) / TICKET))
        except (OSError, ValidationError):
            return Ticket(state=state)

    def write(self, state: State, key: str, ticket: Ticket) -> None:
        """Replace a study's ticket."""
        write_file(self.path(state, key) / TICKET, ticket.model_dump_json(indent=1))

    def move(self, key: str, old: State, new: State, ticket: Ticket) -> Ticket:
        """Take a study to another state: the ticket first, then the rename.

        Returns:
            The ticket as it was written.
        """
        ticket = ticket.model_copy(update={"state": new, "since": time.time()})
        self.write(old, key, ticket)
        source, target = self.path(old, key), self.path(new, key)
        os.utime(source)  # its place in the line
        if target.exists():
            self.discard(new, key)
        source.rename(target)
        return ticket

    def discard(self, state: State, key: str) -> None:
        """Delete a study of a state; from one moment to the next it is not there any more."""
        grave = self.folder / _TRASH / f"{key}.{time.time_ns()}"
        self.path(state, key).rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    def empty_trash(self) -> None:
        """Finish deletions that were cut off."""
        for path in (self.folder / _TRASH).iterdir():
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def receiving(self, key: str) -> Iterator[Path]:
        """The folder for a study's images, while nobody takes it away: several may hold it at once."""
        with self._lock(key).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            images = self.path("incoming", key) / IMAGES
            images.mkdir(mode=_MODE, parents=True, exist_ok=True)
            yield images

    @contextmanager
    def alone(self, key: str) -> Iterator[bool]:
        """Whether nobody receives a study now; while the block runs, nobody begins to."""
        with self._lock(key).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _lock(self, key: str) -> Path:
        # A lock file that is deleted can be held twice; so they stay, a few for all studies.
        return self.folder / _LOCKS / key[:3]
