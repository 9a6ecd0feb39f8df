"""Patients read and preprocessed in threads or processes, ahead of the one that is graded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import NamedTuple

from deploy.predict.brought import brought_in_notes
from deploy.results.inputs import Inputs
from toolkit.config import Grid, Readers
from toolkit.data.box import Box, read_box
from toolkit.data.memory import Workspace
from toolkit.data.patients import Patient
from toolkit.data.reading.door import Reading
from toolkit.data.scan import Edit, Scan, read_scan
from toolkit.data.workers.choose import working
from toolkit.data.workers.work import Results
from toolkit.errors import PatientRefused


class Read(NamedTuple):
    """A patient after reading; without a scan, `reason` says why. `inputs` is the hash of the bytes that were read.

    With a `box` the voxels of the scan are still to be made of it.
    """

    patient: Patient
    scan: Scan | None
    reason: str
    notes: tuple[str, ...]
    seconds: float
    inputs: str = ""
    box: Box | None = None


@dataclass(frozen=True)
class Wanted:
    """What is made of each patient; see `toolkit.data.workers.work.Work`.

    Attributes:
        grid: of the scans.
        edit: see `read_scan`.
        optional: see `read_scan`.
        boxes: leave the preprocessing to the card, see `read_box`; not with an edit.
    """

    grid: Grid
    edit: Edit | None = None
    optional: Sequence[str] = ()
    boxes: bool = False

    def __call__(self, patient: Patient, workspace: Workspace) -> Read:
        """Read and preprocess a patient."""
        if self.boxes:
            return _guarded(patient, self.optional, partial(read_box, patient, self.grid), workspace)
        return read_patient(patient, self.grid, self.edit, workspace, self.optional)

    def lost(self, patient: Patient, reason: str) -> Read:
        """A patient who is refused because reading ended the process that read."""
        return Read(patient, None, reason, (), 0.0, Inputs(self.optional).digest(patient))


def reader(patients: Sequence[Patient], wanted: Wanted, workers: int, readers: Readers = "auto") -> Results[Read]:
    """Reads patients, several at once; nothing that is wrong with a patient raises.

    Args:
        patients: whom to read.
        wanted: what is made of them.
        workers: how many are read at once.
        readers: threads or processes.
    """
    return working(wanted, patients, workers, readers)


def read_patient(
    patient: Patient,
    grid: Grid,
    edit: Edit | None,
    workspace: Workspace | None = None,
    optional: Sequence[str] = (),
) -> Read:
    """Read and preprocess one patient; see `reader`."""
    return _guarded(patient, optional, lambda how: (read_scan(patient, grid, how, edit), None), workspace)


def _guarded(
    patient: Patient,
    optional: Sequence[str],
    read: Callable[[Reading], tuple[Scan, Box | None]],
    workspace: Workspace | None,
) -> Read:
    start, inputs = perf_counter(), Inputs(optional)
    try:
        notes = brought_in_notes(patient.folder)
        scan, box = read(Reading(workspace, inputs.add, optional))
    except PatientRefused as refusal:
        reason = str(refusal)
    except MemoryError:
        reason = "there is not enough memory to read it; use fewer workers"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}"
    else:
        return Read(patient, scan, "", (*notes, *scan.notes), perf_counter() - start, inputs.digest(patient), box)
    return Read(patient, None, reason, (), perf_counter() - start, inputs.digest(patient))
