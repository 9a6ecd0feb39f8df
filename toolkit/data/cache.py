"""The preprocessed cohort on disk, so that a second training starts at once.

An entry is named by the content of the patient's files, the grid and the version of the preprocessing: a changed file
or setting never meets an old entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.arrays import Float32
from toolkit.config import Grid
from toolkit.data.ahead import Ahead
from toolkit.data.patients import Patient, match_modalities
from toolkit.data.scan import PREPROCESSING, read_scan
from toolkit.errors import CohortError, PatientRefused
from toolkit.files import replacing
from toolkit.machine import most_readers


def cached_scans(
    patients: Sequence[Patient], grid: Grid, folder: Path, on_done: Callable[[Patient], None]
) -> list[Float32]:
    """Scans of all patients, read from the cache or preprocessed into it; several threads.

    Args:
        patients: whose scans.
        grid: spacing in mm and shape in voxels.
        folder: the cache; made when it is not there.
        on_done: called after each patient, in the order in which they end.

    Returns:
        For each patient float32 (4, X, Y, Z), a read-only memory map.

    Raises:
        CohortError: patients were refused (all of them are named), or the folder cannot be written.
    """
    refused: list[str] = []

    def one(patient: Patient) -> Float32 | None:
        try:
            scan = _cached(patient, grid, folder)
        except PatientRefused as reason:
            refused.append(f"{patient.id} ({reason})")
            return None
        on_done(patient)
        return scan

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # threads over patients, not inside BLAS
        with threadpool_limits(1), Ahead(one, patients, most_readers()) as reads:
            scans = [reads.take() for _ in patients]
    except OSError as error:
        raise CohortError(
            f"the cache {folder} cannot be written: {error.strerror or error}; name another with [data] cache."
        ) from error
    if refused:
        shown = "; ".join(sorted(refused)[:5]) + (f"; and {len(refused) - 5} more" if len(refused) > 5 else "")
        raise CohortError(
            f"{len(refused)} of {len(patients)} patients cannot be used: {shown}. Mend them or take them out."
        )
    return [scan for scan in scans if scan is not None]


def _cached(patient: Patient, grid: Grid, folder: Path) -> Float32:
    file = folder / f"{_key(patient, grid)}.npy"
    if not file.exists():
        preprocessed = read_scan(patient, grid).data
        with replacing(file, CohortError) as stream:
            np.save(stream, preprocessed)
    try:
        scan: Float32 = np.load(file, mmap_mode="r")
    except (ValueError, EOFError):
        raise CohortError(f"the cache entry {file} is damaged; delete it.") from None
    if scan.shape != (4, *grid.shape) or scan.dtype != np.float32:
        raise CohortError(f"the cache entry {file} is damaged; delete it.")
    return scan


def _key(patient: Patient, grid: Grid) -> str:
    digest = hashlib.sha256(f"{PREPROCESSING} {grid.spacing!r} {grid.shape!r}".encode())
    for name, file in match_modalities(patient.folder).modalities.items():
        try:
            with file.open("rb") as opened:
                digest.update(name.encode() + hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise PatientRefused(f"{file.name} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()[:32]
