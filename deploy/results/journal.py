"""`records.jsonl`: each finished patient's record, appended at once, so that a call that died can be resumed."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from io import BufferedReader, FileIO
from operator import index
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from deploy.results.names import JOURNAL, append_line
from deploy.results.record import Record
from toolkit.errors import GradeError
from toolkit.plain import open_plain, parse_json

Key: TypeAlias = tuple[str, str]  # id, real path of the folder


class Chain(NamedTuple):
    """An audit file up to some line: the number of lines and the hash of the last one."""

    lines: int
    last: str


class Entry(NamedTuple):
    """Where a patient's last record is.

    Attributes:
        place: byte where its line begins.
        graded: whether it has a grade.
        audit: its line of the audit: number and hash.
    """

    place: int
    graded: bool
    audit: Chain


class Journal:
    """Records of a results folder on disk; memory only holds where each of them is.

    A line is `{"model": FINGERPRINT, "folder": REAL_PATH, "audit": {"line": N, "hash": HASH}, "record": {...}}`. A
    patient may have several lines: the last one counts. Nothing on disk changes before `begin`.

    Args:
        folder: of the results.
        model: fingerprint of the model that grades.

    Attributes:
        entries: who has a record, in the order of their first line.
        links: every audit line that a record names, with its hash.
        models: fingerprints of all models that wrote to it.
        damage: what is wrong with the first line that was altered; those after it were not read.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._file, self._model = folder / JOURNAL, model
        self._stream: FileIO | None = None
        self._reader: BufferedReader | None = None
        self._whole = 0  # bytes of the whole lines
        self.entries: dict[Key, Entry] = {}
        self.links: dict[int, str] = {}
        self.models: set[str] = set()
        self.damage: GradeError | None = None

    def __enter__(self) -> Self:
        """Lock the file, if there is one, and read it.

        Raises:
            GradeError: it cannot be read, or another call writes to it.
        """
        try:
            if self._file.exists():
                self._stream = self._locked("rb+")
                self._scan()
        except BaseException as error:  # nothing stays open
            self.__exit__()
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        for stream in (self._reader, self._stream):
            if stream is not None:
                stream.close()

    def begin(self, keep: bool) -> None:
        """Be ready to take records: the first change on disk.

        Args:
            keep: what the file holds. What a dying call left of a last line is cut off in any case.

        Raises:
            GradeError: it cannot be written, or another call has begun to write to it since.
        """
        try:
            if self._stream is None:
                self._stream = self._locked("xb+")
            self._stream.truncate(self._whole if keep else 0)
            if self._reader is not None:  # its buffer may hold what was cut off
                self._reader.close()
            self._reader = self._file.open("rb")
        except FileExistsError:
            raise self._unusable("another call is writing to it") from None
        except OSError as error:
            raise self._failed(error) from error
        if not keep:
            self.entries, self.links = {}, {}

    @property
    def known(self) -> bool:
        """Whether there was a file when the folder was looked at."""
        return self._stream is not None

    def add(self, key: Key, record: Record, audit: Chain) -> None:
        """Append a record, whole, so that it stays whatever happens after.

        Args:
            key: who it is.
            record: to keep.
            audit: its line of the audit.

        Raises:
            GradeError: the disk does not take it.
        """
        content = {
            "model": self._model,
            "folder": key[1],
            "audit": {"line": audit.lines, "hash": audit.last},
            "record": record.model_dump(mode="json"),
        }
        if self._stream is None:
            raise self._unusable("it was not begun")
        try:
            place = append_line(self._stream, (json.dumps(content, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise self._failed(error) from error
        self._note(key, Entry(place, record.grade is not None, audit))

    def read(self, key: Key) -> Record:
        """A patient's last record; there must be one.

        Raises:
            GradeError: the file changed under the call.
        """
        place = self.entries[key].place
        try:
            if self._reader is None:
                raise self._unusable("it was not begun")
            self._reader.seek(place)
            return _entry(self._reader.readline())[2]
        except OSError as error:
            raise self._failed(error) from error
        except (ValueError, KeyError, TypeError):
            raise self._altered(place) from None

    def _scan(self) -> None:
        """Read whole lines; what a dying call left of a last one is passed over."""
        self._reader = open_plain(self._file)
        for place, line in _lines(self._reader):
            try:
                model, key, record, audit = _entry(line)
            except (ValueError, KeyError, TypeError):
                self.damage = self._altered(place)
                return
            self.models.add(model)
            self._note(key, Entry(place, record.grade is not None, audit))
            self._whole = place + len(line)

    def _note(self, key: Key, entry: Entry) -> None:
        self.entries[key] = entry
        self.links[entry.audit.lines] = entry.audit.last

    def _locked(self, mode: str) -> FileIO:
        stream = FileIO(self._file, mode)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise self._unusable("another call is writing to it") from None
        return stream

    def _failed(self, error: OSError) -> GradeError:
        reason = error.strerror or str(error)
        return GradeError(f"{self._file} cannot be continued: {reason}; see to it, or name another folder with --out.")

    def _altered(self, place: int) -> GradeError:
        return self._unusable(f"the line at byte {place} was altered")

    def _unusable(self, reason: str) -> GradeError:
        return GradeError(
            f"{self._file} cannot be continued: {reason}; name another folder with --out, or replace the results with"
            " --overwrite."
        )


def audit_links(folder: Path) -> dict[Key, tuple[Chain, Record]]:
    """Each patient's last record and its audit line, as the journal of a results folder names it; none without one.

    Raises:
        GradeError: a line was altered, or the file cannot be read.
    """
    if not (folder / JOURNAL).exists():
        return {}
    return {key: (audit, record) for _, key, record, audit in _all(folder)}


def last_records(folder: Path) -> list[tuple[str, int, Record]]:
    """The last record of every patient in a results folder: fingerprint of the model, line of the audit, record.

    Raises:
        GradeError: there is none, a line was altered, or the file cannot be read.
    """
    return list({key: (model, audit.lines, record) for model, key, record, audit in _all(folder)}.values())


def _all(folder: Path) -> Iterator[tuple[str, Key, Record, Chain]]:
    """What every whole line of a folder's journal says."""
    file = folder / JOURNAL
    try:
        with open_plain(file) as stream:
            for _, line in _lines(stream):
                yield _entry(line)
    except OSError as error:
        raise GradeError(f"{file} cannot be read: {error.strerror or error}; name a folder of results.") from error
    except (ValueError, KeyError, TypeError):
        raise GradeError(f"{file}: a line was altered, so it does not tell what was answered.") from None


def _lines(stream: BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Whole lines and where they begin."""
    place = 0
    for line in stream:
        if not line.endswith(b"\n"):
            return
        yield place, line
        place += len(line)


def _entry(line: bytes) -> tuple[str, Key, Record, Chain]:
    """What a line says. One of an earlier version names no audit line, as line 0."""
    content = parse_json(line)
    model, record = str(content["model"]), Record.model_validate(content["record"])
    audit = content.get("audit", {"line": 0, "hash": ""})
    return (
        model,
        (record.patient, str(content.get("folder", record.folder))),
        record,
        Chain(index(audit["line"]), str(audit["hash"])),
    )
