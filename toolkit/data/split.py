"""Training and validation patients: stratified by grade, reproducible, no person or site on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.config import DataSettings
from toolkit.data.labels import read_cohort
from toolkit.data.patients import CLASSES, Cohort
from toolkit.data.site import subject_of
from toolkit.errors import CohortError

_TRIES = 200  # random orders of the groups, the one nearest to the wished counts is taken


@dataclass(frozen=True)
class Split:
    """Who is trained on and who validates."""

    training: Cohort
    validation: Cohort


def split_cohort(cohort: Cohort, data: DataSettings, seed: int) -> Split:
    """Split by patient, stratified by grade.

    Args:
        cohort: everybody with a grade.
        data: `validation` is the share, or a folder whose patients validate and are taken out of training;
            `group` says what stays together: a patient (all ids of one subject) or a site.
        seed: the same seed and cohort give the same split on every machine.

    Raises:
        CohortError: one side would lack a class, a site is unknown, or one subject has two grades.
    """
    keys = _group_keys(cohort, data.group)
    _check_one_grade_per_subject(cohort)
    if isinstance(data.validation, Path):
        validation = read_cohort(data.validation, data.labels)
        theirs = {subject_of(patient.id) for patient in validation.patients}
        rest = [i for i, patient in enumerate(cohort.patients) if subject_of(patient.id) not in theirs]
        split = Split(cohort.select(rest), validation)
    else:
        chosen = _choose(cohort.grade_array, keys, data.validation, np.random.default_rng([seed, len(cohort)]))
        split = Split(cohort.select(np.flatnonzero(~chosen).tolist()), cohort.select(np.flatnonzero(chosen).tolist()))
    for name, side in (("training", split.training), ("validation", split.validation)):
        for index, grade in enumerate(CLASSES):
            if index not in side.grades:
                raise CohortError(
                    f"{name} would hold no {grade} among its {len(side)} patients; give more patients or another "
                    "[data] validation share."
                )
    return split


def _group_keys(cohort: Cohort, group: str) -> list[str]:
    if group == "patient":
        return [subject_of(patient.id) for patient in cohort.patients]
    unknown = [patient.id for patient, site in zip(cohort.patients, cohort.sites, strict=True) if site is None]
    if unknown:
        raise CohortError(
            f"the site of {len(unknown)} patients is unknown, {unknown[0]} among them; name a site column."
        )
    return [str(site) for site in cohort.sites]


def _check_one_grade_per_subject(cohort: Cohort) -> None:
    grade_of: dict[str, tuple[str, int]] = {}
    for patient, grade in zip(cohort.patients, cohort.grades, strict=True):
        other, known = grade_of.setdefault(subject_of(patient.id), (patient.id, grade))
        if known != grade:
            raise CohortError(f"{other} and {patient.id} are one subject with two grades; correct the labels.")


def _choose(
    grades: np.ndarray[tuple[int], np.dtype[np.int64]], keys: Sequence[str], share: float, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whole groups for validation such that each class comes as near to its share as it can."""
    names, group = np.unique(np.array(keys), return_inverse=True)
    size = np.zeros((len(names), len(CLASSES)), np.int64)  # (groups, classes): patients
    np.add.at(size, (group, grades), 1)
    wanted = np.maximum(1, np.round(share * size.sum(axis=0)))
    best: tuple[float, list[int]] = (np.inf, [])
    for _ in range(1 if size.sum(axis=1).max() == 1 else _TRIES):
        taken: list[int] = []
        missing = wanted.copy()
        for candidate in rng.permutation(len(names)):
            if (size[candidate] <= missing).all():
                missing -= size[candidate]
                taken.append(int(candidate))
        if missing.sum() < best[0]:
            best = (float(missing.sum()), taken)
    return np.isin(group, best[1])
