"""Training and validation patients: stratified by grade, reproducible, no person or site on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.arrays import Int64, Mask
from toolkit.config import DataSettings
from toolkit.data.cohort.leakage import Groups, persons
from toolkit.data.patients import CLASSES, Cohort
from toolkit.errors import CohortError

_TRIES = 200  # random orders of the groups, the one nearest to the wished counts is taken


@dataclass(frozen=True)
class Split:
    """Who is trained on and who validates."""

    training: Cohort
    validation: Cohort


def split_cohort(
    cohort: Cohort,
    data: DataSettings,
    seed: int,
    validation: Cohort | None = None,
    twins: Sequence[Sequence[int]] = (),
) -> Split:
    """Split by person, stratified by grade.

    Args:
        cohort: all patients with a grade.
        data: `validation` is the share that validates; `group` says what stays together: a patient (all ids and all
            copies of the images of one person) or a site.
        seed: the same seed and cohort give the same split on every machine.
        validation: who validates, in place of a share; the persons in it are taken out of training.
        twins: groups of positions that hold the same images, in `cohort` followed by `validation`.

    Raises:
        CohortError: one side would lack a class, a site is unknown, or one person has two grades.
    """
    everyone = cohort.joined(validation) if validation else cohort
    person = persons(everyone, twins)
    keys = person if data.group == "patient" else site_keys(everyone, person)
    if validation:
        theirs = set(keys[len(cohort) :])
        split = Split(cohort.select([i for i in range(len(cohort)) if keys[i] not in theirs]), validation)
    else:
        share = data.validation if isinstance(data.validation, float) else 0.0
        chosen = _choose(cohort.grade_array, keys, share, np.random.default_rng([seed, len(cohort)]))
        split = Split(cohort.select(np.flatnonzero(~chosen).tolist()), cohort.select(np.flatnonzero(chosen).tolist()))
    advice = "give more patients or another [data] validation share"
    if data.group == "site":
        advice = (
            f"sites stay whole, and there are {len(set(keys))}: add sites that have both grades, set another [data]"
            " validation share, or group by patient"
        )
    for name, side in (("training", split.training), ("validation", split.validation)):
        for index, grade in enumerate(CLASSES):
            if index not in side.grades:
                raise CohortError(f"{name} would hold no {grade} among its {len(side)} patients; {advice}.")
    return split


def site_keys(cohort: Cohort, person: Sequence[int]) -> list[int]:
    """One number for each patient's site; sites that share a person are one.

    Raises:
        CohortError: a site is unknown.
    """
    unknown = [patient.id for patient, site in zip(cohort.patients, cohort.sites, strict=True) if site is None]
    if unknown:
        raise CohortError(
            f"the site of {len(unknown)} patients is unknown, {unknown[0]} among them; name a site column."
        )
    groups = Groups(len(cohort))
    for names in (cohort.sites, person):
        first: dict[object, int] = {}
        for position, name in enumerate(names):
            groups.join(first.setdefault(name, position), position)
    return groups.keys()


def _choose(grades: Int64, keys: Sequence[int], share: float, rng: np.random.Generator) -> Mask:
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
