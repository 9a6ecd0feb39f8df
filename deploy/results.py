"""The results folder: a row as each patient is done, the full record at the end."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict

from toolkit.errors import GradeError

TABLE = "predictions.csv"
RECORD = "predictions.json"
COLUMNS = ("patient", "grade", "probability", "threshold", "verdict", "reason", "runtime", "seconds")


class Seconds(BaseModel):
    """What one patient took: reading with preprocessing, and its share of the batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    read: float
    infer: float


class Record(BaseModel):
    """One patient's result.

    Attributes:
        patient: id.
        folder: where the images were.
        grade: `LGG` or `HGG`; None when refused.
        probability: calibrated P(HGG); None when refused.
        threshold: HGG is decided from here on.
        verdict: `certain`, `uncertain`, `unfamiliar` or `undetermined`, see `deploy.verdict`; None when refused.
        explanation: of a verdict other than `certain`, and that a human has to decide; else empty.
        grades: that are possible at the model's conformal rate.
        distance: of the network's features from the training patients'; None when refused or not known.
        outside: names of those `statistics` that are out of the model's bounds.
        statistics: of the images, see `toolkit.data.statistics`; empty when refused.
        reason: why it was refused; empty when it was graded.
        notes: oddities that were accepted.
        runtime: what answered, such as `onnx fp32 cpu`.
        engine: SHA-256 of the file that answered; empty when refused before.
        inputs: SHA-256 of the four files, see `deploy.audit.hash_inputs`; empty when they could not be read.
        seconds: see `Seconds`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patient: str
    folder: str
    grade: str | None = None
    probability: float | None = None
    threshold: float
    verdict: str | None = None
    explanation: str = ""
    grades: tuple[str, ...] = ()
    distance: float | None = None
    outside: tuple[str, ...] = ()
    statistics: dict[str, float] = {}
    reason: str = ""
    notes: tuple[str, ...] = ()
    runtime: str
    engine: str = ""
    inputs: str = ""
    seconds: Seconds


class Results:
    """Writes `predictions.csv` row by row and, on leaving the `with` block, `predictions.json`.

    Text in the table is quoted and otherwise left as it is, also where a spreadsheet would take it for a formula: an id
    has to be found again. Import the table as text there. Results that were in the folder are replaced. `head` is
    written as it is at the end.
    """

    def __init__(self, folder: Path, head: dict[str, Any]) -> None:
        self._folder, self._head = folder, head
        self._records: list[Record] = []

    def __enter__(self) -> Results:
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
        self._records.append(record)
        try:
            self._row(table_row(record))
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        content = {
            **self._head,
            "complete": kind is None,
            "patients": [record.model_dump(mode="json") for record in self._records],
        }
        try:
            self._stream.close()
        except OSError as failure:
            raise _unwritable(self._folder, failure) from failure
        replace_file(self._folder / RECORD, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def _row(self, cells: tuple[Any, ...]) -> None:
        self._writer.writerow(cells)
        self._stream.flush()


def table_row(record: Record) -> tuple[Any, ...]:
    """A patient's cells, as `COLUMNS`."""
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
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as failure:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path.parent, failure) from failure


def printable(text: str) -> str:
    """Text without the half characters by which Python holds bytes of a file's name that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _unwritable(folder: Path, error: OSError) -> GradeError:
    return GradeError(
        f"results cannot be written to {folder}: {error.strerror or error}; name another folder with --out."
    )
