"""Scans beyond what a patient gives, and who is next to whom in a batch."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.extremes import extreme_scans, together
from tests.deploy.conftest import SETTINGS


def test_extreme_scans_fit_the_grid_and_repeat() -> None:
    first, second = (dict(extreme_scans(SETTINGS.data.grid)) for _ in range(2))
    for name, scan in first.items():
        assert scan.shape == (4, *SETTINGS.data.shape)
        assert scan.dtype == np.float32
        np.testing.assert_array_equal(scan, second[name])
    assert len(first) == 5


@pytest.mark.parametrize(("most", "on_card", "sizes"), [
    (1, False, [1] * 5), (2, False, [2] * 5), (4, False, [4, 3]), (8, False, [4, 3]),
    (1, True, [1] * 5), (4, True, [4, 4, 4]), (8, True, [8, 8]),
])  # fmt: skip
def test_every_extreme_scan_is_answered_once_next_to_a_patient(most: int, on_card: bool, sizes: list[int]) -> None:
    batches = together(2, 5, most, on_card)
    assert [batch.size for batch in batches] == sizes
    assert [number for batch in batches for number in batch.extremes] == list(range(5))
    assert all(bool(batch.first) == (most > 1) for batch in batches)
    assert {patient for batch in batches for patient in batch.first} == ({0, 1} if most > 1 else set())


def test_a_batch_holds_patients_then_extreme_scans_then_what_fills_it() -> None:
    patients = [np.full((4, 1, 1, 1), value, np.float32) for value in (1, 2)]
    extremes = [np.full((4, 1, 1, 1), value, np.float32) for value in (10, 20)]
    (shared, alone) = together(2, 2, 5, on_card=True)
    assert shared.scans(patients, extremes)[:, 0, 0, 0, 0].tolist() == [1, 10, 20, 1, 2]
    assert alone.scans(patients, extremes)[:, 0, 0, 0, 0].tolist() == [1, 2, 1, 2, 1]
