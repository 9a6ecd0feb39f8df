from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from toolkit.config import DataSettings
from toolkit.data.cohort.folds import split_folds
from toolkit.data.patients import Cohort, Patient
from toolkit.errors import CohortError


def cohort(grades: list[int], sites: list[str | None] | None = None, ids: list[str] | None = None) -> Cohort:
    names = ids or [f"p{i:03}" for i in range(len(grades))]
    return Cohort(tuple(Patient(name, Path("/c") / name) for name in names), tuple(grades), tuple(sites or ()))


def ids(part: Cohort) -> set[str]:
    return {patient.id for patient in part.patients}


def test_everybody_validates_once_and_grades_are_even() -> None:
    whole = cohort([0] * 22 + [1] * 33)
    splits = split_folds(whole, DataSettings(), 5, seed=0)
    counts = Counter(name for split in splits for name in ids(split.validation))
    assert counts == dict.fromkeys(ids(whole), 1)
    for split in splits:
        assert ids(split.training) == ids(whole) - ids(split.validation)
        assert Counter(split.validation.grades)[0] in (4, 5)  # 22 / 5
        assert Counter(split.validation.grades)[1] in (6, 7)  # 33 / 5
        assert len(split.validation) == 11


def test_sites_are_spread() -> None:
    sites = ["a"] * 10 + ["b"] * 10 + ["a"] * 10 + ["b"] * 10
    splits = split_folds(cohort([0] * 20 + [1] * 20, [*sites]), DataSettings(), 5, seed=3)
    for split in splits:
        kinds = Counter(zip(split.validation.grades, split.validation.sites, strict=True))
        assert kinds == {(0, "a"): 2, (0, "b"): 2, (1, "a"): 2, (1, "b"): 2}


def test_no_person_on_both_sides() -> None:
    names = [f"BraTS-GLI-{i // 2:05}-{i % 2:03}" for i in range(24)]  # two time points each
    splits = split_folds(
        cohort([(i // 2) % 2 for i in range(24)], ids=names), DataSettings(), 3, seed=1, twins=[(0, 4)]
    )
    for split in splits:
        persons = {name[:-4] for name in ids(split.validation)}
        assert not persons & {name[:-4] for name in ids(split.training)}
        assert ({names[0], names[4]} <= ids(split.validation)) == (names[0] in ids(split.validation))


def test_no_site_on_both_sides_where_asked_for() -> None:
    sites: list[str | None] = [f"s{i % 6}" for i in range(36)]
    splits = split_folds(cohort([i // 6 % 2 for i in range(36)], sites), DataSettings(group="site"), 3, seed=0)
    for split in splits:
        assert not set(split.validation.sites) & set(split.training.sites)
        assert len(split.validation) == 12


def test_seed_decides() -> None:
    whole = cohort([0, 1] * 10)
    first, again, other = (split_folds(whole, DataSettings(), 4, seed)[0] for seed in (0, 0, 1))
    assert ids(first.validation) == ids(again.validation) != ids(other.validation)


def test_refused() -> None:
    with pytest.raises(CohortError, match=r"fold \d of 5 would lack LGG on one side: there are 3"):
        split_folds(cohort([0] * 3 + [1] * 20), DataSettings(), 5, seed=0)
    with pytest.raises(CohortError, match="validation names a folder"):
        split_folds(cohort([0, 1] * 10), DataSettings(validation=Path("elsewhere")), 2, seed=0)
    with pytest.raises(CohortError, match="site of 4 patients is unknown"):
        split_folds(cohort([0, 1, 0, 1], [None] * 4), DataSettings(group="site"), 2, seed=0)
