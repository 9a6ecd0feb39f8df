"""The preprocessed cohort on disk, so that a second training starts at once.

An entry is named by the content of the patient's files, the grid and the version of the preprocessing: a changed file
or setting never meets an old entry.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.arrays import Float32
from toolkit.config import Grid
from toolkit.data.memory import Workspace
from toolkit.data.patients import Patient, match_modalities
from toolkit.data.reading.door import Reading
from toolkit.data.scan import PREPROCESSING, read_scan
from toolkit.data.workers.choose import working
from toolkit.errors import CohortError, PatientRefused
from toolkit.files import replacing, sweep
from toolkit.machine import most_readers
from toolkit.plain import open_plain


@dataclass(frozen=True)
class CachedScan:
    """An entry of the cache; no file is open but while it is read, so that a cohort may be of any size.

    Attributes:
        file: of the entry.
        shape: (4, X, Y, Z), float32.
        images: by which the content of the patient's files is known again, hexadecimal.
    """

    file: Path
    shape: tuple[int, ...]
    images: str

    def read(self) -> Float32:
        """The scan, float32 (4, X, Y, Z), a read-only memory map.

        Raises:
            CohortError: the entry is gone or damaged.
        """
        try:
            scan: Float32 = np.load(self.file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            raise CohortError(f"the cache entry {self.file} is damaged; delete it.") from None
        if scan.shape != self.shape or scan.dtype != np.float32:
            raise CohortError(f"the cache entry {self.file} is damaged; delete it.")
        return scan


Scan: TypeAlias = Float32 | CachedScan


def voxels_of(scan: Scan) -> Float32:
    """A scan's numbers, wherever they are."""
    return scan.read() if isinstance(scan, CachedScan) else scan


def cached_scans(
    patients: Sequence[Patient], grid: Grid, folder: Path, on_done: Callable[[Patient], None]
) -> list[CachedScan]:
    """Scans of all patients, read from the cache or preprocessed into it; several at once.

    Args:
        patients: whose scans.
        grid: spacing in mm and shape in voxels.
        folder: the cache; made when it is not there.
        on_done: called after each patient, in their order.

    Returns:
        For each patient where its scan is.

    Raises:
        CohortError: patients were refused (all of them are named), or the folder cannot be written or has no room.
    """
    refused: list[str] = []
    scans: list[CachedScan] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        _check_room(len(patients), grid, folder)
        # parallel over patients, not inside BLAS
        with threadpool_limits(1), working(_Cache(grid, folder), patients, most_readers()) as reads:
            for patient in patients:
                if isinstance(found := reads.take(), CachedScan):
                    scans.append(found)
                    on_done(patient)
                else:
                    refused.append(f"{patient.id} ({found})")
    except OSError as error:
        raise CohortError(
            f"the cache {folder} cannot be written: {error.strerror or error}; name another with [data] cache."
        ) from error
    if refused:
        shown = "; ".join(sorted(refused)[:5]) + (f"; and {len(refused) - 5} more" if len(refused) > 5 else "")
        raise CohortError(
            f"{len(refused)} of {len(patients)} patients cannot be used: {shown}. Fix them or take them out."
        )
    return scans


@dataclass(frozen=True)
class _Cache:
    """Puts a patient's scan into the cache; a sentence where it cannot. See `toolkit.data.workers.work.Work`."""

    grid: Grid
    folder: Path

    def __call__(self, patient: Patient, workspace: Workspace) -> CachedScan | str:
        try:
            return _cached(patient, self.grid, self.folder, workspace)
        except PatientRefused as reason:
            return str(reason)

    def lost(self, patient: Patient, reason: str) -> str:
        return reason


def _check_room(count: int, grid: Grid, folder: Path) -> None:
    """Refuse a cohort that cannot fit, even if all that is in the folder were of this cohort."""
    there = sum(entry.stat().st_size for entry in folder.glob("*.npy"))
    free = shutil.disk_usage(folder).free
    wanted = count * 4 * math.prod(grid.shape) * 4
    if wanted > there + free:
        raise CohortError(
            f"the cache {folder} needs {wanted / 1e9:.1f} GB for {count} patients on a grid of"
            f" {' x '.join(map(str, grid.shape))}, and the disk has {free / 1e9:.1f} GB free; name a folder on another"
            " disk with [data] cache, or take a coarser grid."
        )


def _cached(patient: Patient, grid: Grid, folder: Path, workspace: Workspace) -> CachedScan:
    images = content_of(patient)
    key = hashlib.sha256(f"{PREPROCESSING} {grid.spacing!r} {grid.shape!r} {images}".encode()).hexdigest()[:32]
    entry = CachedScan(folder / f"{key}.npy", (4, *grid.shape), images)
    if not entry.file.is_file():
        scan = read_scan(patient, grid, Reading(workspace)).data
        if content_of(patient) != images:
            raise PatientRefused("its files changed while they were read; start again when nothing writes to them")
        with replacing(entry.file, CohortError) as stream:
            np.save(stream, scan)
    entry.read()
    return entry


def content_of(patient: Patient) -> str:
    """By which the content of a patient's four files is known again: 32 hexadecimal digits.

    Raises:
        PatientRefused: a file is missing, or cannot be read.
    """
    digest = hashlib.sha256()
    for name, file in match_modalities(patient.folder).modalities.items():
        try:
            with open_plain(file) as opened:
                digest.update(name.encode() + hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise PatientRefused(f"{file.name} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()[:32]
