"""Patients read and preprocessed in threads, ahead of the one that is graded."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from deploy.predict.brought import brought_in_notes
from deploy.results.inputs import Inputs
from toolkit.config import Grid
from toolkit.data.ahead import Ahead
from toolkit.data.memory import Workspace, Workspaces
from toolkit.data.patients import Patient
from toolkit.data.reading.door import Reading
from toolkit.data.scan import Edit, Scan, read_scan
from toolkit.errors import PatientRefused


class Read(NamedTuple):
    """A patient after reading; without a scan, `reason` says why. `inputs` is the hash of the bytes that were read."""

    patient: Patient
    scan: Scan | None
    reason: str
    notes: tuple[str, ...]
    seconds: float
    inputs: str = ""


def reader(
    patients: Sequence[Patient], grid: Grid, workers: int, edit: Edit | None, optional: Sequence[str] = ()
) -> Ahead[Patient, Read]:
    """Reads patients in threads; nothing that is wrong with a patient raises.

    Args:
        patients: whom to read.
        grid: of the scans.
        workers: threads.
        edit: see `read_scan`.
        optional: see `read_scan`.
    """
    of_thread = Workspaces()
    return Ahead(lambda patient: read_patient(patient, grid, edit, of_thread.mine, optional), patients, workers)


def read_patient(
    patient: Patient,
    grid: Grid,
    edit: Edit | None,
    workspace: Workspace | None = None,
    optional: Sequence[str] = (),
) -> Read:
    """Read and preprocess one patient; see `reader`."""
    start, inputs = perf_counter(), Inputs(optional)
    try:
        notes = brought_in_notes(patient.folder)
        scan = read_scan(patient, grid, Reading(workspace, inputs.add, optional), edit)
    except PatientRefused as refusal:
        reason = str(refusal)
    except MemoryError:
        reason = "there is not enough memory to read it; use fewer workers"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}"
    else:
        return Read(patient, scan, "", (*notes, *scan.notes), perf_counter() - start, inputs.digest(patient))
    return Read(patient, None, reason, (), perf_counter() - start, inputs.digest(patient))
