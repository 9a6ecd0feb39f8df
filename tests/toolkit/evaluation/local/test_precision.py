"""How many patients a precision takes, against worked numbers and simulation."""

import numpy as np
import pytest

from toolkit.evaluation.calibration import sigmoid
from toolkit.evaluation.clinical import calibration_line
from toolkit.evaluation.local.precision import (
    needed,
    observed_expected,
    patients_for_coverage,
    patients_for_ratio,
    patients_for_slope,
    proportion,
)


def test_patients_for_a_ratio_are_those_worked_out_by_hand():
    """A standard error of ln(O:E) of 0.245 at a share of 0.018: (1 - 0.018) / (0.018 x 0.245^2) = 908.9."""
    factor = float(np.exp(1.959964 * 0.245))
    assert patients_for_ratio(0.018, factor) == 909


def test_the_ratio_holds_the_truth_in_95_of_100():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        probability = rng.uniform(0.1, 0.9, 80)
        _, low, high = observed_expected((rng.random(80) < probability).astype(int), probability)
        held += low <= 1 <= high
    assert held / 400 > 0.93


def test_the_ratio_is_undefined_without_hgg():
    assert observed_expected(np.zeros(5, int), np.full(5, 0.2)) == (None, None, None)


def test_patients_for_a_slope_give_intervals_of_that_width():
    rng = np.random.default_rng(1)
    count = patients_for_slope(sigmoid(rng.normal(0, 1.5, 20_000)), 0.25)
    widths = []
    for _ in range(20):
        z = rng.normal(0, 1.5, count)
        _, (_, low, high) = calibration_line((rng.random(count) < sigmoid(z)).astype(int), sigmoid(z))
        widths.append((high - low) / 2)
    assert np.mean(widths) == pytest.approx(0.25, rel=0.1)
    assert patients_for_slope(np.full(30, 0.4), 0.25) is None


def test_coverage_takes_as_many_of_the_rarer_grade():
    assert patients_for_coverage(0.1, 0.1, 0.5) == 70  # 35 of each: 0.09 x (1.96 / 0.1)^2 is 34.6
    assert patients_for_coverage(0.1, 0.1, 0.9) == 346
    assert proportion(9, 10)[0] == 0.9
    assert proportion(0, 0) == (None, None, None)


def test_a_narrower_interval_takes_more_patients():
    rng = np.random.default_rng(2)
    probability = rng.uniform(0.05, 0.95, 100)
    rows = needed((rng.random(100) < probability).astype(int), probability, 0.1)
    by = {(row.figure, row.width): row.patients for row in rows}
    assert by["O:E", "0.67 to 1.50"] < by["O:E", "0.80 to 1.25"]
    assert by["calibration slope", "0.50 to 1.50"] < by["calibration slope", "0.75 to 1.25"]
    assert by["coverage of each grade", "80 to 100 %"] < by["coverage of each grade", "85 to 95 %"]
