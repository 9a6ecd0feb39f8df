"""Patients read and preprocessed in threads, ahead of the one that is taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple

from deploy.audit import hash_inputs
from toolkit.config import Grid
from toolkit.data.patients import Patient
from toolkit.data.scan import Scan, read_scan
from toolkit.errors import PatientRefused


class Read(NamedTuple):
    """A patient after reading; without a scan, `reason` says why. `inputs` is the SHA-256 of the files."""

    patient: Patient
    scan: Scan | None
    reason: str
    notes: tuple[str, ...]
    seconds: float
    inputs: str = ""


class Reader:
    """Reads patients in threads, so many ahead of the one that is taken, in the order given."""

    def __init__(self, patients: Sequence[Patient], grid: Grid, workers: int) -> None:
        self.workers = workers
        self._waiting = iter(patients)
        self._ahead: deque[Future[Read]] = deque()
        self._grid = grid

    def __enter__(self) -> Reader:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="read")
        self._fill(self.workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, batch_size: int) -> Read | None:
        """The next patient, None after the last; then readers + a batch are read or being read."""
        if not self._ahead:
            return None
        read = self._ahead.popleft().result()
        self._fill(self.workers + batch_size)
        return read

    def _fill(self, most: int) -> None:
        while len(self._ahead) < most and (patient := next(self._waiting, None)):
            self._ahead.append(self._pool.submit(_read, patient, self._grid))


def _read(patient: Patient, grid: Grid) -> Read:
    start, inputs = perf_counter(), hash_inputs(patient)
    try:
        scan = read_scan(patient, grid)
    except PatientRefused as refusal:
        reason = str(refusal)
    except MemoryError:
        reason = "there is not enough memory to read it; use fewer workers"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}"
    else:
        return Read(patient, scan, "", scan.notes, perf_counter() - start, inputs)
    return Read(patient, None, reason, (), perf_counter() - start, inputs)
