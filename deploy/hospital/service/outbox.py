"""Answers on their way out: one thread, so that a peer that is away holds up nothing else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from deploy.hospital.network.nodes import peer_named
from deploy.hospital.network.receive import read_identity
from deploy.hospital.network.send import send_files
from deploy.hospital.queue import RESULTS, Queue, State, Ticket, study_key
from toolkit.config.service import ServiceSettings
from toolkit.errors import GradeError
from toolkit.files import building, first_line, put

DROP = "folder"  # the destination of what was dropped: next to where it was dropped
_LONGEST = 3600.0  # seconds between two tries


class Sent(NamedTuple):
    """What came of sending one answer; `why` is empty when every destination has it."""

    key: str
    state: State
    reached: tuple[str, ...]
    why: str


class Outbox:
    """Sends answers, one after the other.

    Args:
        queue: of the service.
        settings: peers and TLS.
        answers: folder for the answers of dropped studies; None without a watched folder.
        on_sent: called in the sending thread with key, destination and number of objects, once they are there.
    """

    def __init__(
        self,
        queue: Queue,
        settings: ServiceSettings,
        answers: Path | None,
        on_sent: Callable[[str, str, int], None],
    ) -> None:
        self._queue, self._settings, self._answers, self._on_sent = queue, settings, answers, on_sent
        self._pool = ThreadPoolExecutor(1, "sending")
        self._going: tuple[str, Future[Sent]] | None = None

    @property
    def busy(self) -> str:
        """Key of the study whose answer is being sent; empty when none is."""
        return self._going[0] if self._going else ""

    def begin(self, key: str, state: State, ticket: Ticket) -> None:
        """Send a study's answer to where it has not arrived."""
        self._going = key, self._pool.submit(self._send, key, state, ticket)

    def finished(self) -> Sent | None:
        """What came of the answer that was being sent; None while it is, or when none was."""
        if self._going is None or not self._going[1].done():
            return None
        sent = self._going[1].result()
        self._going = None
        return sent

    def close(self) -> None:
        """Wait for the answer that is being sent."""
        self._pool.shutdown()

    def _send(self, key: str, state: State, ticket: Ticket) -> Sent:
        folder = self._queue.path(state, key) / RESULTS
        reached = []
        why = ""
        for name in ticket.unsent:
            try:
                files = sorted(folder.glob("*.dcm"))
                if name == DROP:
                    self._copy(files, key, ticket)
                else:
                    deliver(files, self._settings, name)
                self._on_sent(key, name, len(files))
                reached.append(name)
            except (GradeError, OSError) as error:
                why = first_line(error)
        return Sent(key, state, tuple(reached), why)

    def _copy(self, files: list[Path], key: str, ticket: Ticket) -> None:
        if self._answers is None:
            raise GradeError(f"the answer of {ticket.drop} waits for --watch, without which it has no folder")
        names = (ticket.drop, f"{ticket.drop}-{key[:8]}", f"{ticket.drop}.{time.time_ns()}")
        out = next(place for name in names if _may_hold(place := self._answers / name, key))
        with building(out, "answer", GradeError) as folder:
            for file in files:
                shutil.copyfile(file, folder / file.name)
            put(folder, out)


def _may_hold(place: Path, key: str) -> bool:
    """Whether nothing is at a place but an earlier answer of the same study: another one's is never replaced."""
    if not place.exists():
        return True
    file = min(place.glob("*.dcm"), default=None)  # answers are put there whole: one object tells for all
    identity = read_identity(file.read_bytes()) if file else None
    return identity is not None and study_key(identity.study) == key


def deliver(files: list[Path], settings: ServiceSettings, name: str) -> None:
    """Objects to a peer, by C-STORE where it has host and port, else by STOW-RS.

    Raises:
        GradeError: it did not take them.
    """
    if peer_named(settings, name).host:
        send_files(files, settings, name)
    else:
        store_by_web(files, settings, name)


def store_by_web(files: list[Path], settings: ServiceSettings, name: str) -> None:
    """Objects to a peer by STOW-RS.

    Raises:
        GradeError: it has no such address, or did not take them.
    """
    from deploy.hospital.network.web import store_files  # dicomweb-client takes a second to load

    address = peer_named(settings, name).web
    if not address:
        raise GradeError(f"peer {name} has no DICOMweb address; add web to [hospital.peers.{name}].")
    store_files(files, address)


def next_pause(settings: ServiceSettings, tries: int) -> float:
    """Seconds until the next try after so many failures: doubled each time, up to an hour."""
    return min(settings.send_pause * 2.0 ** min(tries - 1, 20), _LONGEST)
