from pathlib import Path

import numpy as np
import pytest

from toolkit.data.cohort.leakage import SAME_CONTENT, content_print, persons, same_content
from toolkit.data.patients import Cohort, Patient
from toolkit.errors import CohortError


def images(seed, shape=(40, 44, 36)):
    rng = np.random.default_rng(seed)
    return [rng.normal(500, 80, shape).astype(np.int16) for _ in range(4)]


def cohort(ids, grades):
    return Cohort(tuple(Patient(name, Path(name)) for name in ids), tuple(grades))


def test_a_print_is_of_unit_length_and_forgets_type_scale_and_offset():
    plain = content_print(images(0))
    assert np.linalg.norm(plain) == pytest.approx(1, abs=1e-6)
    changed = content_print([image.astype(np.float64) * 1e200 + 3e200 for image in images(0)])
    np.testing.assert_allclose(changed, plain, atol=1e-6)


def test_copies_are_found_and_others_are_not():
    noisy = [image + np.random.default_rng(9).normal(0, 0.5, image.shape) for image in images(1)]
    prints = [content_print(found) for found in (images(0), images(1), images(2), noisy, images(0))]
    assert same_content(prints) == [(0, 4), (1, 3)]
    assert prints[0] @ prints[2] < 0.2 < SAME_CONTENT


def test_no_images_no_groups():
    assert same_content([]) == []


def test_persons_join_ids_and_images():
    ids = ["Brats17_TCIA_451_1", "a", "Brats18_TCIA09_451_1", "b", "c"]
    assert persons(cohort(ids, [0, 0, 0, 1, 1]), [(1, 2)]) == [0, 0, 0, 3, 4]


def test_the_same_images_with_two_grades_are_an_error():
    with pytest.raises(CohortError, match=r"a and c are one person .* correct the labels"):
        persons(cohort("abc", [0, 1, 1]), [(0, 2)])
