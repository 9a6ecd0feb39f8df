"""When a study is complete, and what becomes of what arrived: a new study, late slices, or a repeat."""

from __future__ import annotations

import filecmp
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from deploy.hospital.queue import IMAGES, Queue, State, Ticket

Arrival = Literal["new", "reopened", "repeated"]
OnArrival: TypeAlias = Callable[[str, Arrival, Ticket], None]


class Inbox:
    """Watches what is being received.

    A study is complete when no image has come for a while and no association that brought one is open. Time is
    measured by the monotonic clock from when this process saw the last change, so that a clock that is set cannot
    complete a study too early.

    Args:
        queue: of the service.
        quiet: seconds without an image.
    """

    def __init__(self, queue: Queue, quiet: float) -> None:
        self._queue, self._quiet = queue, quiet
        self._seen: dict[str, tuple[int, float]] = {}  # key -> what the folder looked like, since when

    def complete(self, busy: frozenset[str], on_arrival: OnArrival) -> None:
        """Take every study that is complete to `ready`.

        Args:
            busy: studies that must not be touched now, since they are being graded or sent.
            on_arrival: called with key, what it is and its ticket, just before it changes its place.
        """
        present = self._queue.keys("incoming")
        self._seen = {key: seen for key, seen in self._seen.items() if key in present}
        for key in present:
            if not self._is_quiet(key) or key in busy:
                continue
            with self._queue.alone(key) as alone:
                if alone and self._is_quiet(key):
                    self._take(key, on_arrival)
                    self._seen.pop(key, None)

    def _is_quiet(self, key: str) -> bool:
        images = self._queue.path("incoming", key) / IMAGES
        try:
            look = images.stat().st_mtime_ns  # renaming a file into a folder changes it
        except FileNotFoundError:
            look = 0
        now = time.monotonic()
        if key not in self._seen or self._seen[key][0] != look:
            self._seen[key] = (look, now)
        return now - self._seen[key][1] >= self._quiet

    def _take(self, key: str, on_arrival: OnArrival) -> None:
        images = self._queue.path("incoming", key) / IMAGES
        images.mkdir(parents=True, exist_ok=True)
        for torn in images.glob(".*.tmp"):  # of a killed reception
            torn.unlink(missing_ok=True)
        earlier = self._queue.state_of(key)
        ticket = self._queue.ticket("incoming", key)
        came = sum(1 for _ in images.glob("*.dcm"))
        if not came:  # a killed reception had just made the folder
            self._queue.discard("incoming", key)
            return
        if earlier is not None:
            known = self._queue.path(earlier, key) / IMAGES
            if earlier != "failed" and _adds_nothing(images, known):
                on_arrival(key, "repeated", ticket.model_copy(update={"images": came}))
                self._queue.discard("incoming", key)
                return
            self._merge(key, earlier, images, known)
        count = sum(1 for _ in images.glob("*.dcm"))
        ticket = ticket.model_copy(update={"images": count, "completed": time.time()})
        on_arrival(key, "reopened" if earlier else "new", ticket)
        self._queue.move(key, "incoming", "ready", ticket)

    def _merge(self, key: str, earlier: State, images: Path, known: Path) -> None:
        """Put the earlier images next to the new ones. Killed in between, it is simply done again."""
        for file in known.glob("*.dcm"):
            if not (images / file.name).exists():
                file.rename(images / file.name)
        self._queue.discard(earlier, key)


def _adds_nothing(images: Path, known: Path) -> bool:
    """Whether every image is known with the same content."""
    return all(
        (known / file.name).is_file() and filecmp.cmp(file, known / file.name, shallow=False)
        for file in images.glob("*.dcm")
    )
