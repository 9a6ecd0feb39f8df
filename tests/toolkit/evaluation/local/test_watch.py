"""Changes noticed, and quiet years that stay quiet."""

import numpy as np
import pytest

from toolkit.evaluation.calibration import sigmoid
from toolkit.evaluation.local import watch
from toolkit.evaluation.local.watch import (
    expected_auc,
    place_limit,
    places,
    share_limit,
    watch_numbers,
    watch_outcomes,
    watch_share,
)
from toolkit.evaluation.metrics import auc

HORIZON, RATE = 100, 0.05


@pytest.fixture(autouse=True, scope="module")
def fewer_runs():
    """A tenth of the simulations: limits become a little higher, never lower than promised."""
    before = watch.RUNS, watch.OUTCOME_RUNS
    watch.RUNS, watch.OUTCOME_RUNS = 4000, 1000
    yield
    watch.RUNS, watch.OUTCOME_RUNS = before
    place_limit.cache_clear()
    share_limit.cache_clear()


def test_places_are_those_counted_by_hand():
    rng = np.random.default_rng(0).random(3)
    expected = [(2 + rng[0]) / 4, (0 + rng[1]) / 5, (2 + 2 * rng[2]) / 6]
    np.testing.assert_allclose(places([1.0, 2.0, 5.0], [3.0, 0.0, 2.0]), expected)


def test_places_of_an_unchanged_number_are_uniform_whatever_its_distribution():
    rng = np.random.default_rng(1)
    found = np.concatenate([places(rng.pareto(1.5, 20), rng.pareto(1.5, 40)) for _ in range(100)])
    np.testing.assert_allclose(np.quantile(found, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


def test_quiet_years_alarm_at_most_at_the_stated_rate_however_few_the_reference():
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(200):
        found = watch_numbers("x", rng.standard_cauchy(12), rng.standard_cauchy(HORIZON), RATE, HORIZON)
        alarms += found.alarm is not None
    assert alarms / 200 < RATE + 0.035


def test_a_shift_is_found_soon_and_its_direction_is_told():
    rng, delays = np.random.default_rng(3), []
    for _ in range(20):
        values = np.concatenate([rng.normal(0, 1, 100), rng.normal(-2, 1, 60)])
        found = watch_numbers("noise", rng.normal(0, 1, 25), values, RATE, HORIZON)
        if found.alarm is not None and found.alarm >= 100:
            delays.append(found.alarm - 100)
            assert found.towards == "lower"
    assert len(delays) >= 18
    assert np.median(delays) < 20


def test_a_share_alarms_above_its_limit_alone():
    rng = np.random.default_rng(4)
    quiet = 0
    for _ in range(200):
        hits = (rng.random(HORIZON) < 0.1).astype(int)
        quiet += watch_share("x", hits, 0.1, RATE, HORIZON).alarm is not None
    assert quiet / 200 < RATE + 0.035
    assert watch_share("x", (rng.random(80) < 0.5).astype(int), 0.1, RATE, HORIZON).alarm is not None
    assert watch_share("x", np.zeros(80, int), 0.1, RATE, HORIZON).path.max() == 0


def test_outcomes_alarm_beyond_the_factor_of_the_odds_alone():
    rng, quiet, found = np.random.default_rng(5), 0, 0
    for _ in range(60):
        z = rng.normal(0, 1.5, 120)
        edge = watch_outcomes("x", (rng.random(120) < sigmoid(z + np.log(2))).astype(int), sigmoid(z), 2.0, RATE)
        off = watch_outcomes("x", (rng.random(120) < sigmoid(z + np.log(12))).astype(int), sigmoid(z), 2.0, RATE)
        quiet += edge.alarm is not None
        found += off.alarm is not None
        assert off.towards == "more HGG"
    assert quiet / 60 < RATE + 0.06
    assert found / 60 > 0.9


def test_the_expected_auc_is_the_one_that_outcomes_then_show():
    rng = np.random.default_rng(6)
    probability = sigmoid(rng.normal(0.3, 1.7, 4000))
    shown = auc((rng.random(4000) < probability).astype(int), probability)
    assert expected_auc(probability) == pytest.approx(shown, abs=0.02)
    assert expected_auc(np.array([0.5, 0.5, 0.5])) == pytest.approx(0.5)
    assert expected_auc(np.array([1.0, 1.0])) is None


def test_no_patient_is_no_alarm():
    assert watch_numbers("x", [1.0], [], RATE, HORIZON).alarm is None
    assert watch_share("x", np.zeros(0, int), 0.1, RATE, HORIZON).alarm is None
