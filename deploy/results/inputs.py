"""Which images were graded: one hash over a patient's four files."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

from toolkit.data.patients import MODALITIES, Patient, match_modalities
from toolkit.data.reading.header import MAX_BYTES
from toolkit.errors import PatientRefused


class Inputs:
    """Hashes a patient's files as they are read, so that the hash is of the very bytes that were decoded.

    Args:
        optional: modalities of which the patient may lack one.
    """

    def __init__(self, optional: Sequence[str] = ()) -> None:
        self._hashes: dict[str, str] = {}
        self._optional = optional

    def add(self, modality: str, content: bytes) -> None:
        """Take one file's bytes."""
        self._hashes[modality] = hashlib.sha256(content).hexdigest()

    def digest(self, patient: Patient) -> str:
        """SHA-256 of the lines `<SHA-256 of the file> <modality>`, in channel order.

        Args:
            patient: whose files these are; what was not read, as the patient was refused before, is read now.

        Returns:
            64 hexadecimal digits; empty where a modality is missing, too large, not a plain file, or cannot be read.
        """
        try:
            if len(self._hashes) < len(MODALITIES):
                files = match_modalities(patient.folder, self._optional).modalities
                self._hashes |= {name: _hash(file) for name, file in files.items() if name not in self._hashes}
        except (OSError, PatientRefused):
            return ""
        lines = (f"{self._hashes[name]} {name}\n" for name in MODALITIES if name in self._hashes)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_inputs(patient: Patient, missing: str = "") -> str:
    """The hash of a patient's files as they are on disk now; see `Inputs.digest`.

    Args:
        patient: whose files.
        missing: the modality that the patient may lack; empty: none.
    """
    return Inputs((missing,)).digest(patient)


def _hash(file: Path) -> str:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:  # to open a pipe would wait for ever
        raise PatientRefused("is not a plain file of a usual size")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
