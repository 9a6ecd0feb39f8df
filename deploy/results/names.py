"""The files of a results folder, and what the parts of it share when they write."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from io import FileIO
from pathlib import Path

from toolkit.errors import GradeError

JOURNAL = "records.jsonl"
AUDIT = "audit.jsonl"
TABLE = "predictions.csv"
RECORD = "predictions.json"
INDEX = "report.html"
PATIENTS = "patients"
EVIDENCE = "evidence"
OWN_GRID = "own-grid"  # in the evidence
ASSETS = "assets"
ORDER = "patients.js"  # in the assets: who comes before and after whom


def is_results(folder: Path) -> bool:
    """Whether a folder holds what a prediction keeps."""
    return (folder / JOURNAL).is_file()


def page_of(folder: Path, patient: str) -> Path:
    """Where a patient's page is, if there is one."""
    return folder / PATIENTS / f"{file_name(patient)}.html"


def map_of(folder: Path, patient: str) -> Path:
    """Where a patient's evidence map on the network's grid is, if there is one."""
    return folder / EVIDENCE / f"{file_name(patient)}.nii.gz"


def own_map_of(folder: Path, patient: str) -> Path:
    """Where a patient's evidence map on the grid of the patient's own images is, if there is one."""
    return folder / EVIDENCE / OWN_GRID / f"{file_name(patient)}.nii.gz"


def file_name(patient: str) -> str:
    """An id as the name of a file: letters, digits, `.`, `_`, `-`; a hash tells apart what had to be changed."""
    plain = re.sub(r"[^\w.-]", "_", patient, flags=re.ASCII).lstrip(".")[:100]
    return plain if plain == patient else f"{plain}-{hashlib.sha256(patient.encode()).hexdigest()[:8]}"


def append_line(stream: FileIO, line: bytes) -> int:
    """Append a line, whole or not at all: a full disk leaves no half line.

    Args:
        stream: open for writing, unbuffered.
        line: with its line break.

    Returns:
        The byte where the line begins.

    Raises:
        OSError: the disk does not take it.
    """
    place = stream.seek(0, os.SEEK_END)
    left = memoryview(line)
    try:
        while left:
            left = left[stream.write(left) :]
    finally:
        if left:
            with suppress(OSError):
                stream.truncate(place)
    return place


def unwritable(folder: Path, error: OSError) -> GradeError:
    """The sentence for a results folder that takes no files."""
    return GradeError(
        f"results cannot be written to {folder}: {error.strerror or error}; name another folder with --out."
    )
