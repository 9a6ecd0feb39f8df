"""Every patient through the door, without a model: what is there, what was matched, what is refused and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from threadpoolctl import threadpool_limits

from toolkit.data.ahead import Ahead
from toolkit.data.cohort.leakage import Print, content_print
from toolkit.data.patients import Patient, match_modalities
from toolkit.data.reading.door import open_patient
from toolkit.errors import PatientRefused
from toolkit.machine import most_readers


@dataclass(frozen=True)
class Checked:
    """One patient after the door.

    Attributes:
        patient: who.
        files: modality -> name of its file; empty where they could not be matched.
        reason: why the patient is refused; empty when not.
        notes: oddities that were accepted.
        shape: voxels along right, anterior, superior; empty when refused.
        spacing: mm, likewise.
        brain_ml: volume of the brain's mask; None when refused.
        content: by which the images are known again; None when refused.
        seconds: reading and checking.
    """

    patient: Patient
    files: dict[str, str]
    reason: str
    notes: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    brain_ml: float | None
    content: Print | None
    seconds: float


def check_patients(
    patients: Sequence[Patient], on_done: Callable[[Checked], None], workers: int | None = None
) -> list[Checked]:
    """Read every file to its end and check every patient, in threads.

    Args:
        patients: as `find_patients` gives them.
        on_done: called after each patient, in their order.
        workers: threads; None takes `most_readers`.

    Returns:
        One entry for each patient, in their order; images are let go, so memory does not grow with the cohort.
    """
    found = []
    threads = workers or most_readers()
    with threadpool_limits(1, user_api="blas"), Ahead(_check, patients, threads) as checks:
        while checked := checks.take():
            found.append(checked)
            on_done(checked)
    return found


def _check(patient: Patient) -> Checked:
    start = perf_counter()
    files: dict[str, str] = {}
    try:
        files = {name: file.name for name, file in match_modalities(patient.folder).modalities.items()}
        images = open_patient(patient)
    except PatientRefused as refusal:
        reason = str(refusal)
    except MemoryError:
        reason = "there is not enough memory to read it; use fewer workers"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}"
    else:
        return Checked(
            patient=patient,
            files=files,
            reason="",
            notes=images.notes,
            shape=images.shape,
            spacing=tuple(float(edge) for edge in images.edges.round(3)),
            brain_ml=round(images.brain_ml, 1),
            content=content_print(list(images.voxels.values()), list(images.slopes.values())),
            seconds=perf_counter() - start,
        )
    return Checked(patient, files, reason, (), (), (), None, None, perf_counter() - start)
