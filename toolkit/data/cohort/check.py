"""Every patient through the door, without a model: what is there, what was matched, what is refused and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from threadpoolctl import threadpool_limits

from toolkit.data.cohort.leakage import Print, content_print, persons, same_content
from toolkit.data.memory import Workspace
from toolkit.data.patients import Cohort, Patient, match_modalities
from toolkit.data.reading.door import Reading, open_patient
from toolkit.data.workers.choose import working
from toolkit.errors import CohortError, PatientRefused
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
        spacing: mm, as above.
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


@dataclass(frozen=True)
class CohortCheck:
    """All patients after the door, and what only shows when they are looked at together.

    Attributes:
        patients: one entry for each, in their order.
        duplicates: groups of patients that hold the same images.
        persons: how many persons the patients of the cohort are; None without grades, or with a conflict.
        conflict: a sentence where one person has two grades; else empty.
    """

    patients: tuple[Checked, ...]
    duplicates: tuple[tuple[Checked, ...], ...]
    persons: int | None
    conflict: str

    @property
    def refused(self) -> int:
        """Patients that cannot be graded."""
        return sum(bool(check.reason) for check in self.patients)


def check_cohort(
    patients: Sequence[Patient],
    cohort: Cohort | None,
    on_done: Callable[[Checked], None],
    workers: int | None = None,
) -> CohortCheck:
    """Check every patient, and all of them against each other.

    Args:
        patients: as for `check_patients`.
        cohort: the grades of these patients; None: not known.
        on_done: called after each patient, in their order.
        workers: how many are read at once; None takes `most_readers`.
    """
    checks = check_patients(patients, on_done, workers)
    good = [(check, check.content) for check in checks if check.content is not None]
    groups = same_content([content for _, content in good])
    duplicates = tuple(tuple(good[position][0] for position in group) for group in groups)
    count, conflict = _persons(cohort, duplicates) if cohort else (None, "")
    return CohortCheck(tuple(checks), duplicates, count, conflict)


def check_patients(
    patients: Sequence[Patient], on_done: Callable[[Checked], None], workers: int | None = None
) -> list[Checked]:
    """Read every file to its end and check every patient, several at once.

    Args:
        patients: as `find_patients` gives them.
        on_done: called after each patient, in their order.
        workers: how many are read at once; None takes `most_readers`.

    Returns:
        One entry for each patient, in their order; images are let go, so memory does not grow with the cohort.
    """
    found = []
    with threadpool_limits(1, user_api="blas"), working(_Check(), patients, workers or most_readers()) as checks:
        while checked := checks.take():
            found.append(checked)
            on_done(checked)
    return found


class _Check:
    """See `toolkit.data.workers.work.Work`."""

    def __call__(self, patient: Patient, workspace: Workspace) -> Checked:
        return _check(patient, workspace)

    def lost(self, patient: Patient, reason: str) -> Checked:
        return _refused(patient, {}, reason, 0.0)


def _check(patient: Patient, workspace: Workspace) -> Checked:
    start = perf_counter()
    files: dict[str, str] = {}
    try:
        files = {name: file.name for name, file in match_modalities(patient.folder).modalities.items()}
        images = open_patient(patient, Reading(workspace))
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
    return _refused(patient, files, reason, perf_counter() - start)


def _refused(patient: Patient, files: dict[str, str], reason: str, seconds: float) -> Checked:
    return Checked(patient, files, reason, (), (), (), None, None, seconds)


def _persons(cohort: Cohort, duplicates: Sequence[tuple[Checked, ...]]) -> tuple[int | None, str]:
    """How many persons the patients are; None, and a sentence, where one of them has two grades."""
    place = {patient.id: position for position, patient in enumerate(cohort.patients)}
    known = [[place[check.patient.id] for check in group if check.patient.id in place] for group in duplicates]
    try:
        return len(set(persons(cohort, [group for group in known if len(group) > 1]))), ""
    except CohortError as conflict:
        return None, str(conflict)
