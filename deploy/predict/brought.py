"""What a patient folder says of how it was brought in; light, as every prediction asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.errors import PatientRefused

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
        raise PatientRefused(str(record["refused"]))
    return tuple(str(note) for note in record["notes"])


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a patient folder; None for a folder of other origin.

    Raises:
        PatientRefused: it cannot be read.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise PatientRefused(f"{RECORD} cannot be read: {error}; ingest the study again") from None
    if not isinstance(record, dict) or not isinstance(record.get("notes"), list):
        raise PatientRefused(f"{RECORD} is not of this version; ingest the study again")
    return record
