"""`records.jsonl`: each finished patient's record, appended at once, so that a call which died goes on where it was."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from pydantic import ValidationError

from deploy.results.record import Record
from toolkit.data.patients import Patient, printable
from toolkit.errors import GradeError

Key: TypeAlias = tuple[str, str]

JOURNAL = "records.jsonl"


class Journal:
    """Records of a results folder on disk; in memory is only where each one lies.

    A line is `{"model": FINGERPRINT, "record": {...}}`. A patient may have several lines: the last one counts. One who
    was refused in an earlier call is not finished: the disk may be back, the files mended.

    Args:
        folder: of the results.
        model: fingerprint of the model that grades.
        resume: keep what earlier calls finished; else begin anew.
    """

    def __init__(self, folder: Path, model: str, resume: bool) -> None:
        self._file, self._model, self._resume = folder / JOURNAL, model, resume
        self._places: dict[Key, int] = {}  # byte where the patient's line begins
        self._finished: set[Key] = set()

    def __enter__(self) -> Self:
        """Read what earlier calls finished.

        Raises:
            GradeError: the file cannot be read, was altered, is another model's, or another call writes to it.
        """
        try:
            self._stream = self._file.open("a+b")
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        with ExitStack() as stack:  # an error leaves nothing open
            stack.callback(self._stream.close)
            self._read()
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def _read(self) -> None:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._resume:
                self._stream.truncate(0)
            for place, line in self._lines():
                record = self._record(line, place)
                self._places[key_of(record)] = place
                (self._finished.add if record.grade else self._finished.discard)(key_of(record))
        except BlockingIOError:
            raise self._unusable("another call is writing to it") from None
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error

    def finished(self, patient: Patient) -> bool:
        """Whether an earlier call graded the patient."""
        return key_of(patient) in self._finished

    def add(self, record: Record) -> None:
        """Append a record, whole, so that it stays whatever happens after.

        Raises:
            GradeError: the disk does not take it.
        """
        line = json.dumps({"model": self._model, "record": record.model_dump(mode="json")}, allow_nan=False) + "\n"
        try:
            place = self._stream.seek(0, os.SEEK_END)
            self._stream.write(line.encode())
            self._stream.flush()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        self._places[key_of(record)] = place

    def read(self, key: Key) -> Record:
        """A patient's record, whoever wrote it; there must be one."""
        place = self._places[key]
        self._stream.seek(place)
        return self._record(self._stream.readline(), place)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines and where they begin; what a dying call left of a last one is cut off."""
        self._stream.seek(0)
        place = 0
        for line in self._stream:
            if not line.endswith(b"\n"):
                self._stream.truncate(place)
                return
            yield place, line
            place += len(line)

    def _record(self, line: bytes, place: int) -> Record:
        try:
            content = json.loads(line)
            model, record = content["model"], Record.model_validate(content["record"])
        except (ValueError, KeyError, TypeError, ValidationError):
            raise self._unusable(f"the line at byte {place} was altered") from None
        if model != self._model:
            raise self._unusable(f"it was begun by model {str(model)[:12]}, and this is {self._model[:12]}")
        return record

    def _unusable(self, reason: str) -> GradeError:
        return GradeError(f"{self._file} cannot be continued: {reason}; name another folder with --out, or delete it.")


def key_of(who: Patient | Record) -> Key:
    """What tells a patient of one call from the others, as a record has it."""
    if isinstance(who, Record):
        return who.patient, who.folder
    return printable(who.id), printable(str(who.folder))
