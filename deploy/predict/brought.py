"""What a patient folder says of how it was brought in; light, as every prediction asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import PatientRefused
from toolkit.plain import read_json

RECORD = "ingest.json"


def brought_in_notes(folder: Path) -> tuple[str, ...]:
    """What was noted when a study was brought into this folder; empty for a folder of other origin.

    Args:
        folder: of a patient.

    Raises:
        PatientRefused: the study was refused, with that reason; or the record cannot be read.
    """
    record = read_record(folder)
    if record is None:
        return ()
    if record.get("refused"):
        raise PatientRefused(record["refused"])
    return tuple(record["notes"])


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a patient folder; None for a folder of other origin.

    Raises:
        PatientRefused: it cannot be read.
    """
    try:
        record = read_json(folder / RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PatientRefused(f"{RECORD} cannot be read: {error.strerror}; ingest the study again") from None
    except ValueError as error:
        raise PatientRefused(f"{RECORD} cannot be read: {error}; ingest the study again") from None
    if not isinstance(record, dict) or not _of_words(record.get("notes"), record.get("refused", "")):
        raise PatientRefused(f"{RECORD} is not of this version; ingest the study again")
    return record


def _of_words(notes: object, refused: object) -> bool:
    return isinstance(notes, list) and all(isinstance(note, str) for note in notes) and isinstance(refused, str)
