"""A cohort as a plain table of numbers, for graders that need no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.arrays import Float64
from toolkit.data.memory import Workspace
from toolkit.data.patients import Patient
from toolkit.data.reading.door import Reading, open_patient
from toolkit.data.statistics import image_statistics
from toolkit.data.tumour import tumour_measures
from toolkit.data.workers.choose import working
from toolkit.errors import CohortError, PatientRefused
from toolkit.machine import most_readers


class Measures(NamedTuple):
    """Numbers of N patients.

    Attributes:
        looks_at: what they measure, in words.
        names: of the K columns.
        table: (N, K) float64.
    """

    looks_at: str
    names: tuple[str, ...]
    table: Float64


def measure_patients(patients: Sequence[Patient], on_done: Callable[[Patient], None]) -> Measures:
    """Volumes of the tumour's regions where every patient has a mask, else statistics of the brain's intensities.

    Args:
        patients: at least one.
        on_done: called after each, in order.

    Raises:
        CohortError: a patient cannot be trusted, or a mask is on another grid.
    """
    found: list[tuple[dict[str, float], dict[str, float] | None]] = []
    with threadpool_limits(1), working(_Measure(), patients, most_readers()) as reads:
        while (measured := reads.take()) is not None:
            found.append(measured)
            on_done(patients[len(found) - 1])
    tumours = [tumour for _, tumour in found if tumour is not None]
    whole = len(tumours) == len(found)
    rows = tumours if whole else [brain for brain, _ in found]
    looks_at = "volumes and ratios of the tumour's regions" if whole else "statistics of the brain's intensities"
    names = tuple(rows[0])
    return Measures(looks_at, names, np.array([[row[name] for name in names] for row in rows], np.float64))


class _Measure:
    """Measures the brain, and the tumour where there is a mask; see `toolkit.data.workers.work.Work`."""

    def __call__(self, patient: Patient, workspace: Workspace) -> tuple[dict[str, float], dict[str, float] | None]:
        try:
            images = open_patient(patient, Reading(workspace))
            return image_statistics(images), tumour_measures(images) if images.seg else None
        except PatientRefused as reason:
            return self.lost(patient, str(reason))

    def lost(self, patient: Patient, reason: str) -> NoReturn:
        raise CohortError(f"patient {patient.id} cannot be measured: {reason}; fix it or take it out.") from None
