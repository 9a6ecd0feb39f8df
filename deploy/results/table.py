"""The results folder: a row as each patient is done, the full record at the end."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from deploy.results.journal import Journal, Key, key_of
from deploy.results.record import Record
from toolkit.errors import GradeError

TABLE = "predictions.csv"
RECORD = "predictions.json"
COLUMNS = ("patient", "grade", "probability", "threshold", "verdict", "reason", "runtime", "seconds")


class Results:
    """Writes `predictions.csv` row by row and, on leaving the `with` block, `predictions.json`.

    Text in the table is quoted and otherwise left as it is, also where a spreadsheet would take it for a formula: an id
    has to be found again. Import the table as text there. Results that were in the folder are replaced. No record is
    held in memory.

    Args:
        folder: of the results.
        journal: holds each record that is added.
        head: written as it is at the end.
    """

    def __init__(self, folder: Path, journal: Journal, head: dict[str, Any]) -> None:
        self._folder, self._journal, self._head = folder, journal, head
        self._written: list[Key] = []

    def __enter__(self) -> Self:
        try:
            (self._folder / RECORD).unlink(missing_ok=True)  # it would not belong to the new table
            self._stream = (self._folder / TABLE).open("w", encoding="utf-8", newline="")
            self._writer = csv.writer(self._stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            self._row(COLUMNS)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        return self

    def add(self, record: Record) -> None:
        """Write a patient's row, so that it stays whatever happens after.

        Raises:
            GradeError: the disk does not take it.
        """
        try:
            self._row(_cells(record))
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        self._written.append(key_of(record))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()
            with replacing(self._folder / RECORD) as stream:
                head = json.dumps({**self._head, "complete": kind is None}, indent=2, allow_nan=False)
                stream.write(head.removesuffix("\n}") + ',\n  "patients": [')
                for number, key in enumerate(self._written):
                    record = json.dumps(self._journal.read(key).model_dump(mode="json"), allow_nan=False)
                    stream.write(f"{',' if number else ''}\n    {record}")
                stream.write("\n  ]\n}\n")
        except OSError as failure:
            raise _unwritable(self._folder, failure) from failure

    def _row(self, cells: tuple[Any, ...]) -> None:
        self._writer.writerow(cells)
        self._stream.flush()


def _cells(record: Record) -> tuple[Any, ...]:
    """As `COLUMNS`."""
    probability = None if record.probability is None else round(record.probability, 6)
    return (
        record.patient,
        record.grade or "",
        "" if probability is None else probability,
        round(record.threshold, 6),
        record.verdict or "",
        record.reason or record.explanation,
        record.runtime,
        round(record.seconds.read + record.seconds.infer, 3),
    )


def prepare(folder: Path) -> None:
    """Make the results folder and see that it can be written, before any work.

    Raises:
        GradeError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def replace_file(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        GradeError: it cannot be written.
    """
    try:
        with replacing(path) as stream:
            stream.write(text)
    except OSError as failure:
        raise _unwritable(path.parent, failure) from failure


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of another when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> GradeError:
    return GradeError(
        f"results cannot be written to {folder}: {error.strerror or error}; name another folder with --out."
    )
