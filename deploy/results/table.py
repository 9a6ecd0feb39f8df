"""`predictions.csv`, a row as each patient is done, and `predictions.json`, the full record at the end."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from deploy.results.names import RECORD, TABLE, append_line, unwritable
from deploy.results.record import Record
from toolkit.errors import GradeError
from toolkit.files import replacing
from toolkit.plain import MOST_TABLE, read_json

COLUMNS = (
    "patient",
    "status",
    "grade",
    "probability",
    "threshold",
    "verdict",
    "reason",
    "runtime",
    "model",
    "seconds",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a cell that begins so
MARK = "'"  # and takes one that begins so for text


class Table:
    """Writes `predictions.csv`. Text that a spreadsheet would take for a formula gets a `'` in front.

    Text that begins with `'` gets another one, so that the first `'` of a cell, where there is one, is never part of
    the text. `predictions.json` has every text as it is.

    Args:
        folder: of the results.
        model: fingerprint, in every row.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._folder, self._model = folder, model
        self._stream: FileIO | None = None

    def begin(self, records: Iterable[Record]) -> None:
        """Replace the table by one of these records, whole or not at all, and be ready for more.

        Raises:
            GradeError: the disk does not take it.
        """
        self.close()
        try:
            with replacing(self._folder / TABLE) as stream:
                stream.write(_row(COLUMNS).encode())
                for record in records:
                    stream.write(_row(self._cells(record)).encode())
            self._stream = FileIO(self._folder / TABLE, "ab")
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def add(self, record: Record) -> None:
        """Write a patient's row, so that it stays whatever happens after.

        Raises:
            GradeError: the disk does not take it.
        """
        try:
            if self._stream is not None:
                append_line(self._stream, _row(self._cells(record)).encode())
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def close(self) -> None:
        """No more rows."""
        if self._stream is not None:
            self._stream.close()

    def _cells(self, record: Record) -> tuple[Any, ...]:
        """As `COLUMNS`."""
        text = (record.patient, record.verdict or "", record.reason or record.explanation, record.runtime)
        patient, verdict, reason, runtime = map(harmless, text)
        return (
            patient,
            "refused" if record.grade is None else "graded",
            record.grade or "",
            "" if record.probability is None else round(record.probability, 6),
            round(record.threshold, 6),
            verdict,
            reason,
            runtime,
            self._model,
            round(record.seconds.read + record.seconds.infer, 3),
        )


def harmless(text: str) -> str:
    """A text as a cell that no spreadsheet computes: with a `'` in front where it would, or where it has one."""
    return MARK + text if text.startswith((*FORMULA, MARK)) else text


def write_record(folder: Path, head: Mapping[str, object], records: Iterable[Record]) -> None:
    """Write `predictions.json`, whole or not at all; no more than one record is held in memory.

    Raises:
        GradeError: the disk does not take it.
    """
    with replacing(folder / RECORD) as stream:
        text = json.dumps(head, indent=2, allow_nan=False)
        stream.write((text.removesuffix("\n}") + ',\n  "patients": [').encode())
        for number, record in enumerate(records):
            line = json.dumps(record.model_dump(mode="json"), allow_nan=False)
            stream.write(f"{',' if number else ''}\n    {line}".encode())
        stream.write(b"\n  ]\n}\n")


def read_records(folder: Path) -> tuple[Record, ...]:
    """All records of a results folder, in the order of its table.

    Raises:
        GradeError: there is no `predictions.json`, or it was altered.
    """
    file = folder / RECORD
    try:
        return tuple(Record.model_validate(record) for record in read_json(file, MOST_TABLE)["patients"])
    except OSError as error:
        raise GradeError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise GradeError(f"{file} was altered: {error}; predict again.") from error


def check_writable(folder: Path) -> None:
    """See that a results folder can be written, before any work; nothing is left there, not even the folder.

    Raises:
        GradeError: it cannot.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def _row(cells: tuple[Any, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow(cells)
    return line.getvalue()
