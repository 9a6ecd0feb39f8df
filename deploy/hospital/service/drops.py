"""A watched folder: what is put there, a folder or a zip, is taken as studies; no DICOM networking is needed.

WATCH/NAME             put there by anybody; taken once nothing in it has changed for a while
WATCH/taken/NAME       what was taken, until it is as old as received files may be
WATCH/rejected/NAME    what held no image of magnetic resonance
WATCH/answers/NAME/    the objects of the answer; NAME-KEY where the answer of another study has the name
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.hospital.network.receive import KEPT, put_image, read_identity
from deploy.hospital.queue import TICKET, Queue, Ticket, study_key
from deploy.hospital.study.files import Files
from deploy.hospital.study.listing import list_files
from deploy.hospital.study.source import UnreadableFile
from toolkit.config.service import ServiceSettings
from toolkit.errors import CohortError, GradeError
from toolkit.files import first_line, write_file

_ANSWERS, _TAKEN, _REJECTED = "answers", "taken", "rejected"
_DAY = 86400.0


@dataclass
class _Seen:
    """What is known of something in the watched folder.

    Attributes:
        look: its inode, how many files it has, and the newest change of one.
        since: since when it has looked so, or was tried in vain, by the monotonic clock.
        place: where it goes, once it was read.
        trouble: what was said of it.
    """

    look: tuple[int, int, int]
    since: float
    place: str = ""
    trouble: str = ""


class Drops:
    """Takes what is dropped into a folder.

    Args:
        watch: the folder; it and its own three are made where they are missing.
        queue: where studies go.
        settings: how long nothing may change, and how long things are kept.
        labels: whether to note Patient IDs.

    Raises:
        GradeError: the folder cannot be made.
    """

    def __init__(self, watch: Path, queue: Queue, settings: ServiceSettings, labels: bool) -> None:
        self._watch, self._queue, self._settings, self._labels = watch, queue, settings, labels
        self._seen: dict[str, _Seen] = {}  # by name
        self.answers = watch / _ANSWERS
        try:
            for name in (_ANSWERS, _TAKEN, _REJECTED):
                (watch / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise GradeError(f"{watch} cannot be watched: {error.strerror}; name another folder.") from error

    def take(self, on_trouble: Callable[[str], None]) -> None:
        """Take everything that is whole, then delete what was taken long ago.

        What cannot be taken holds up nothing else. It is tried again as if it had just come, and its trouble said once.
        """
        present = [item for item in sorted(self._watch.iterdir()) if not item.name.startswith(".")]
        names = {item.name for item in present}
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        for item in present:
            if item.name in (_ANSWERS, _TAKEN, _REJECTED) or not self._is_quiet(item):
                continue
            seen = self._seen[item.name]
            trouble = self._trouble_with(item, seen)
            if trouble and trouble != seen.trouble:
                on_trouble(f"something in the watched folder {trouble}")
            seen.trouble = trouble
        self._delete_old()

    def _trouble_with(self, item: Path, seen: _Seen) -> str:
        """Take one thing; what is to be said of it, without its name, which may be a patient's."""
        seen.since = time.monotonic()
        try:
            if not seen.place:  # else it was read before
                seen.place = _TAKEN if self._take(item) else _REJECTED
        except (GradeError, OSError) as error:
            return f"cannot be taken: {_without_paths(error)}; it is tried again"
        try:
            self._put_away(item, seen.place)
        except OSError as error:
            why = _without_paths(error)
            return f"was read and cannot be moved to {seen.place}/: {why}; change its owner, or move it away"
        return "" if seen.place == _TAKEN else "holds no MR image; it is in rejected/ now"

    def _is_quiet(self, item: Path) -> bool:
        try:
            # Path's own `is_dir` raises for a link to where this process may not look.
            files = [item, *item.rglob("*")] if os.path.isdir(item) else [item]  # noqa: PTH112
            look = (item.lstat().st_ino, len(files), max(map(_changed, files)))
        except OSError:  # being written, or renamed
            return False
        now = time.monotonic()
        if item.name not in self._seen or self._seen[item.name].look != look:
            self._seen[item.name] = _Seen(look, now)
        return now - self._seen[item.name].since >= self._settings.quiet

    def _take(self, item: Path) -> int:
        """How many studies came out of it. Killed in between, it is simply done again."""
        text = os.fsencode(item.name).decode(errors="backslashreplace")  # the ticket is UTF-8, a name need not be
        studies: set[str] = set()
        begun: set[str] = set()
        try:
            for content in _contents(item):
                identity = read_identity(content)
                if identity is None or identity.kind not in KEPT:
                    continue
                key = study_key(identity.study)
                if key not in studies and not self._queue.path("incoming", key).exists():
                    begun.add(key)
                with self._queue.receiving(key) as folder:
                    if key not in studies:
                        name = text if not studies else f"{text}-{key[:8]}"
                        label = identity.patient if self._labels else ""
                        ticket = Ticket(sender="folder", label=label, drop=name)
                        write_file(folder.parent / TICKET, ticket.model_dump_json(indent=1))
                        studies.add(key)
                    put_image(folder, identity.instance, content)
        except (GradeError, OSError):  # such as a full disk; half a study must not be graded
            self._let_go(begun)
            raise
        return len(studies)

    def _let_go(self, begun: set[str]) -> None:
        for key in begun:
            with self._queue.alone(key) as alone:
                if alone and self._queue.path("incoming", key).exists():
                    self._queue.discard("incoming", key)

    def _put_away(self, item: Path, place: str) -> None:
        target = self._watch / place / item.name
        if os.path.lexists(target):
            target = target.with_name(f"{item.name}.{time.time_ns()}")
        item.rename(target)
        self._seen.pop(item.name, None)

    def _delete_old(self) -> None:
        limit = time.time() - self._settings.keep_days * _DAY
        for place in (_TAKEN, _ANSWERS, _REJECTED):
            for item in (self._watch / place).iterdir():
                if item.lstat().st_ctime < limit:  # when it was put there
                    folder = not item.is_symlink() and item.is_dir()
                    shutil.rmtree(item, ignore_errors=True) if folder else item.unlink(missing_ok=True)


def _changed(file: Path) -> int:
    """When a file was last changed, in nanoseconds; of a link that leads nowhere, the link itself."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return file.lstat().st_mtime_ns


def _without_paths(error: GradeError | OSError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)


def _contents(item: Path) -> Iterator[bytes]:
    """The bytes of each file that may be DICOM; zips as the front door opens them, bombs refused."""
    try:
        listing = list_files(item)
    except CohortError:
        return
    with Files() as files:
        for source in listing.sources:
            try:
                with files.open(source) as stream:
                    yield stream.read()
            except UnreadableFile:
                continue
