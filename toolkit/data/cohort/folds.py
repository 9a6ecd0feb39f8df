"""Cross-validation: every patient validates once, stratified by grade and site, no person or site on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.arrays import Int64
from toolkit.config import DataSettings
from toolkit.data.cohort.leakage import persons
from toolkit.data.cohort.split import Split, site_keys
from toolkit.data.patients import CLASSES, Cohort
from toolkit.errors import CohortError


def split_folds(
    cohort: Cohort, data: DataSettings, folds: int, seed: int, twins: Sequence[Sequence[int]] = ()
) -> list[Split]:
    """Cut a cohort into folds, each of which validates what the others train.

    Args:
        cohort: all patients with a grade.
        data: `group` says what stays together; `validation` must be a share, which is not used.
        folds: at least 2.
        seed: the same seed and cohort give the same folds on every machine.
        twins: groups of positions that hold the same images.

    Returns:
        One split per fold.

    Raises:
        CohortError: validation is a folder, one side of a fold would lack a class, a site is unknown that is needed,
            or one person has two grades.
    """
    if isinstance(data.validation, Path):
        raise CohortError(
            "folds take their validation patients from the cohort, but [data] validation names a folder; leave one of"
            " the two out."
        )
    person = persons(cohort, twins)
    keys = person if data.group == "patient" else site_keys(cohort, person)
    fold = _deal(cohort, keys, folds, np.random.default_rng([seed, len(cohort), folds]))
    found = []
    for number in range(folds):
        split = Split(
            cohort.select(np.flatnonzero(fold != number).tolist()),
            cohort.select(np.flatnonzero(fold == number).tolist()),
        )
        for index, grade in enumerate(CLASSES):
            if index not in split.validation.grades or index not in split.training.grades:
                raise CohortError(
                    f"fold {number + 1} of {folds} would lack {grade} on one side: there are"
                    f" {cohort.grades.count(index)}; take fewer folds or give more patients."
                )
        found.append(split)
    return found


def _deal(cohort: Cohort, keys: Sequence[int], folds: int, rng: np.random.Generator) -> Int64:
    """The fold of each patient: the largest groups first, each to the fold that has fewest of its kind."""
    sites = cohort.sites or (None,) * len(cohort)
    kinds = list(zip(cohort.grades, sites, strict=True))
    members: dict[int, list[int]] = {}
    for position in rng.permutation(len(cohort)).tolist():
        members.setdefault(keys[position], []).append(position)
    of_kind = [Counter[tuple[int, str | None]]() for _ in range(folds)]
    of_grade = [Counter[int]() for _ in range(folds)]
    fold = np.zeros(len(cohort), np.int64)
    for group in sorted(members.values(), key=len, reverse=True):  # sorting is stable: the random order stays

        def crowd(number: int, group: list[int] = group) -> tuple[int, int, int]:
            same_kind = sum(of_kind[number][kinds[position]] for position in group)
            same_grade = sum(of_grade[number][cohort.grades[position]] for position in group)
            return same_kind, same_grade, of_grade[number].total()

        chosen = min(range(folds), key=crowd)
        fold[group] = chosen
        of_kind[chosen].update(kinds[position] for position in group)
        of_grade[chosen].update(cohort.grades[position] for position in group)
    return fold
