import itertools
from pathlib import Path

import numpy as np
import pytest

from toolkit.config import DataSettings
from toolkit.data.cohort.split import split_cohort
from toolkit.data.patients import Cohort, Patient
from toolkit.data.site import site_of, subject_of
from toolkit.errors import CohortError


def cohort(ids, grades, sites=()):
    return Cohort(tuple(Patient(name, Path(name)) for name in ids), tuple(grades), tuple(sites))


BRATS_2018 = cohort([f"p{i:03}" for i in range(285)], [1] * 210 + [0] * 75)


def test_brats_2018_gives_228_and_57_with_the_same_mix():
    split = split_cohort(BRATS_2018, DataSettings(), seed=0)
    assert (len(split.training), len(split.validation)) == (228, 57)
    assert (sum(split.training.grades), sum(split.validation.grades)) == (168, 42)


def test_every_patient_is_on_one_side():
    split = split_cohort(BRATS_2018, DataSettings(), seed=3)
    ids = [patient.id for patient in split.training.patients + split.validation.patients]
    assert sorted(ids) == sorted(patient.id for patient in BRATS_2018.patients)


def test_seed_decides():
    first, again, other = (split_cohort(BRATS_2018, DataSettings(), seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_one_subject_stays_on_one_side():
    ids = [f"BraTS-GLI-{subject:05}-{time:03}" for subject in range(40) for time in range(3)]
    grades = [int(subject % 3 > 0) for subject in range(40) for _ in range(3)]
    split = split_cohort(cohort(ids, grades), DataSettings(), seed=0)
    sides = [{subject_of(patient.id) for patient in side.patients} for side in (split.training, split.validation)]
    assert not sides[0] & sides[1]
    assert len(split.validation) == pytest.approx(24, abs=3)


def test_by_site_no_site_is_on_both_sides():
    sites = [site for site, size in zip("ABCDEFGH", (30, 25, 20, 20, 15, 15, 10, 5), strict=True) for _ in range(size)]
    grades = np.random.default_rng(0).integers(0, 2, len(sites)).tolist()
    everyone = cohort([f"p{i}" for i in range(len(sites))], grades, sites)
    split = split_cohort(everyone, DataSettings(group="site"), seed=0)
    assert not set(split.training.sites) & set(split.validation.sites)
    assert len(split.validation) == pytest.approx(28, abs=8)


def test_two_sites_that_nearly_are_the_grades_cannot_be_split():
    grades = [1] * 208 + [0] + [0] * 74 + [1] * 2
    everyone = cohort([f"p{i}" for i in range(285)], grades, ["a"] * 209 + ["b"] * 76)
    with pytest.raises(CohortError, match=r"hold no LGG among its 0 .*sites stay whole, and there are 2: add sites"):
        split_cohort(everyone, DataSettings(group="site"), seed=0)


def test_unknown_site_is_named():
    with pytest.raises(CohortError, match="site of 4 patients is unknown, p0"):
        split_cohort(cohort(["p0", "p1", "p2", "p3"], [0, 1, 0, 1], [None] * 4), DataSettings(group="site"), 0)


def test_one_subject_with_two_grades_is_an_error():
    ids = ["Brats17_TCIA_451_1", "Brats18_TCIA09_451_1", "a", "b", "c"]
    with pytest.raises(
        CohortError, match=r"Brats17_TCIA_451_1 and Brats18_TCIA09_451_1 are one person .* with two grades"
    ):
        split_cohort(cohort(ids, [0, 1, 0, 1, 0]), DataSettings(), 0)


def test_too_few_of_a_class():
    with pytest.raises(CohortError, match="training would hold no LGG among its 3"):
        split_cohort(cohort("abcde", [0, 1, 1, 1, 1]), DataSettings(), 0)


@pytest.mark.parametrize(
    "ids",
    [
        ("Brats17_TCIA_451_1", "Brats18_TCIA09_451_1", "BraTS19_TCIA09_451_1"),
        ("Brats17_2013_10_1", "Brats18_2013_10_1"),
        ("BraTS-GLI-00002-000", "BraTS-GLI-00002-001"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21"),
    ],
)
def test_one_person_under_several_ids(ids):
    assert len({subject_of(name) for name in ids}) == 1


def test_other_persons_stay_apart():
    brats = ["Brats18_TCIA09_451_1", "Brats18_CBICA_AAB_1", "Brats18_2013_10_1", "Brats18_2013_1_1"]
    later = ["BraTS-GLI-00002-000", "BraTS20_Training_001", "BraTS20_Training_002", "BraTS2021_00001"]
    ids = [*brats, *later, "UCSF-PDGM-0004", "000808310"]
    for first, second in itertools.combinations(ids, 2):
        assert subject_of(first) != subject_of(second)


def test_sites():
    assert [site_of(name) for name in ("Brats18_TCIA09_451_1", "Brats18_2013_10_1", "BraTS19_CBICA_AAB_1", "p7")] == [
        "TCIA09",
        "2013",
        "CBICA",
        None,
    ]
