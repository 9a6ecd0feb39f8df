import tracemalloc

import numpy as np
import pytest

from tests.toolkit.data.faults import CASES, drafted
from toolkit.data.cohort.check import check_patients
from toolkit.data.cohort.leakage import same_content
from toolkit.data.patients import find_patients


def test_what_is_known_of_a_good_patient(tmp_path):
    drafted(()).write(tmp_path)
    seen = []
    (checked,) = check_patients(find_patients([tmp_path]), seen.append)
    assert seen == [checked]
    assert checked.reason == ""
    assert checked.files == {name: f"patient_{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2")}
    assert checked.shape == (24, 24, 16)
    assert checked.spacing == (1, 1, 1)
    assert checked.brain_ml == pytest.approx(16 * 16 * 10 / 1000, abs=0.1)


def test_the_order_is_kept_and_one_bad_patient_stops_nobody(tmp_path):
    for case in CASES["gzip"][:12]:
        case.write(tmp_path)
    patients = find_patients([tmp_path])
    checks = check_patients(patients, lambda _: None, workers=3)
    assert [check.patient for check in checks] == list(patients)
    expected = {case.name: bool(case.reason) for case in CASES["gzip"][:12]}
    assert {check.patient.id: bool(check.reason) for check in checks} == expected
    assert all(check.content is None for check in checks if check.reason)


def test_the_same_images_stored_in_another_way_are_known_again(tmp_path):
    """The cases of the generator that must give the scan of the sound patient."""
    for category, cases in CASES.items():
        for case in cases:
            if case.like == () and category in ("header", "gzip"):
                case.write(tmp_path)
    drafted(()).write(tmp_path)
    checks = [check for check in check_patients(find_patients([tmp_path]), lambda _: None) if not check.reason]
    assert len(checks) > 30
    (group,) = same_content([check.content for check in checks])
    assert len(group) == len(checks)


def test_memory_does_not_grow_with_the_cohort(tmp_path):
    for number in range(24):
        drafted((), f"p{number:02}").write(tmp_path)
    patients = find_patients([tmp_path])
    check_patients(patients[:4], lambda _: None, workers=1)  # buffers of the threads

    def peak(count):
        tracemalloc.start()
        check_patients(patients[:count], lambda _: None, workers=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    one_patient = 4 * np.zeros((24, 24, 16), np.int16).nbytes
    assert peak(24) - peak(4) < 20 * one_patient / 2  # what is kept of each is less than half of it
