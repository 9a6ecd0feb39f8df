"""Distances against scikit-learn's, and the rate of false alarms on simulated patients."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from toolkit.evaluation.familiarity import Bound, Familiarity, FeatureSpace, fit_bounds
from toolkit.evaluation.familiarity_fit import fit_space, tolerance_limit

RATES = {
    "distance_rate": 0.1,
    "distance_confidence": 0.95,
    "distance_by": "rank",
    "image_rate": 0.05,
    "training": 62,
    "validation": 57,
}


def features(rng, patients, size):
    """Correlated, some of them never moving, as after a ReLU."""
    mix = np.random.default_rng(5).normal(size=(size, size)) / np.sqrt(size)
    found = np.maximum(rng.normal(size=(patients, size)) @ mix, -0.5)
    found[:, :3] = 0
    return found


@pytest.mark.parametrize(("patients", "size"), [(40, 64), (80, 20)])
def test_distance_is_that_of_scikit_learn(patients, size):
    rng = np.random.default_rng(0)
    training, new = features(rng, patients, size), features(rng, 10, size)
    wanted = LedoitWolf().fit(training).mahalanobis(new) ** 0.5
    np.testing.assert_allclose(fit_space(training).distance(new), wanted, rtol=1e-6)


def test_distance_by_hand():
    space = FeatureSpace(np.array([1.0, 0]), np.array([[0.6, 0.8]]), np.array([4.0]), 0.25)
    assert space.distance([[1.6, 0.8]]) == pytest.approx(0.5)  # one unit along the component, sqrt(1 / 4)
    assert space.distance([[1.8, -0.6]]) == pytest.approx(2)  # one unit across it, sqrt(1 / 0.25)
    assert np.isnan(space.distance([[np.nan, 0]])).all()


def test_features_that_never_move():
    space = fit_space(np.ones((5, 8)))
    assert space.distance(np.ones((1, 8))) == pytest.approx(0)
    assert space.distance(np.full((1, 8), 1.1)) > 100


def test_bounds_by_hand():
    """Twice 0 to 100, and 122; without its fold, 11, 21, ... of the others, the median is 50, the ends 2 and 98."""
    one = np.concatenate([np.arange(101.0), np.arange(101.0), [122]])
    table = one[:, None] * [1, 0]  # the other never moves
    first, second = fit_bounds(table, ("a", "b"), 0.005)  # one of 203 may score more than all: the limit is 122's score
    rest = np.delete(one, np.arange(2, 203, 10))
    low, middle, high = np.quantile(rest, [0.02, 0.5, 0.98])
    limit = (122 - middle) / (high - middle)
    low, middle, high = np.quantile(one, [0.02, 0.5, 0.98])
    assert first.name == "a"
    assert first.low == pytest.approx(middle - limit * (middle - low))
    assert first.high == pytest.approx(middle + limit * (high - middle))
    assert (second.low, second.high) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert fit_bounds(table[:198], ("a", "b"), 0.005) == ()


def zero_inflated(rng, patients, share):
    """Two plain statistics beside a volume that is 0 in most patients and 1 to 100 ml in a few."""
    volume = np.where(rng.random(patients) < share, np.exp(rng.uniform(0, 4.6, patients)), 0)
    return np.column_stack([rng.normal(10, 1, (patients, 2)), volume])


def widest(share):
    """How much a zero-inflated volume widens the other two ranges, at most in 20 cohorts of 200."""
    found = []
    for seed in range(20):
        table = zero_inflated(np.random.default_rng(seed), 200, share)
        alone, beside = (fit_bounds(table[:, :k], ("a", "b", "scattered")[:k], 0.025) for k in (2, 3))
        found += [(b.high - b.low) / (a.high - a.low) for a, b in zip(alone, beside, strict=False)]
    return max(found)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1, 0.5])
def test_a_volume_of_a_few_hardly_widens_the_other_ranges(share, monkeypatch):
    assert widest(share) < 1.5
    if share == 0.03:
        monkeypatch.setattr("toolkit.evaluation.familiarity.FLOORS", {})
        assert widest(share) > 3  # judged in ml it would


def test_one_spot_is_no_alarm_and_many_are():
    table = zero_inflated(np.random.default_rng(0), 200, 0)
    bound = fit_bounds(table, ("a", "b", "scattered"), 0.025)[2]
    assert bound.low == 0
    assert 1 < bound.high < 6  # ml


def test_a_limit_without_measure_stays_finite():
    """A statistic that never moves, but in three of 200: the common limit is enormous."""
    table = zero_inflated(np.random.default_rng(0), 200, 0.03)
    table[:, 0] = np.repeat([1, 0], [3, 197])
    bounds = fit_bounds(table, ("a", "b", "scattered"), 0.01)
    assert bounds[1].high > 1e9
    assert all(np.isfinite([bound.low, bound.high]).all() for bound in bounds)


def test_alarms_with_a_volume_of_a_few_are_as_rare_as_promised():
    rng, names, alarms = np.random.default_rng(1), ("a", "b", "scattered"), []
    for _ in range(300):
        table = zero_inflated(rng, 119 + 80, 0.05)
        known = Familiarity(**RATES, distance=1, bounds=fit_bounds(table[:119], names, 0.05))
        alarms.append(np.mean([bool(known.outside(dict(zip(names, row, strict=True)))) for row in table[119:]]))
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.01)


def test_outside():
    known = Familiarity(**RATES, distance=3.0, bounds=(Bound(name="a", low=1, high=2),))
    assert known.outside({"a": 1.0}) == known.outside({"a": 2.0}) == ()
    for statistics in ({"a": 0.99}, {"a": 2.01}, {"a": float("nan")}, {}):
        assert known.outside(statistics) == known.bounds
    assert known.known
    assert not known.model_copy(update={"distance": None}).known


def test_false_alarms_are_as_rare_as_promised():
    """Skewed, heavy-tailed statistics of 119 patients; mean over 300 cohorts."""
    rng, names = np.random.default_rng(0), tuple("abcdefgh")
    alarms = []
    for _ in range(300):
        sample = np.exp(rng.standard_t(4, (119 + 80, len(names))))
        known = Familiarity(**RATES, distance=1, bounds=fit_bounds(sample[:119], names, 0.05))
        alarms.append(np.mean([bool(known.outside(dict(zip(names, row, strict=True)))) for row in sample[119:]]))
    # k / (N + 1) with k = 6; the ranges of nine tenths of the patients are a little less exact than those of all
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize(("patients", "rank"), [(29, 1), (45, 1), (46, 2), (60, 2), (61, 3), (75, 3), (76, 4)])
def test_ranks_are_those_of_the_tables(patients, rank):
    """Conover 1999, table of one-sided tolerance limits, 90 % of the population with 95 % confidence."""
    distances = np.random.default_rng(0).permutation(np.arange(1.0, patients + 1))
    assert tolerance_limit(distances, 0.1, 0.95) == (patients + 1 - rank, "rank")


def test_the_tail_by_hand():
    """25 logarithms, the 13th largest 1, the mean of the 12 beyond it 1.5; c = 2.838 by a simulation of its own."""
    rng = np.random.default_rng(0)
    rates = rng.beta(13, 13, 400_000) * np.exp(-2.838 * rng.gamma(12, 1 / 12, 400_000))
    assert (rates > 0.1).mean() == pytest.approx(0.05, abs=0.001)
    logs = np.concatenate([np.linspace(-1, 1, 13), np.linspace(1.1, 1.9, 12)])
    limit, by = tolerance_limit(np.exp(logs), 0.1, 0.95)
    assert np.log(limit) == pytest.approx(1 + 2.838 * 0.5, abs=0.002)
    assert by == "tail"


def test_too_few_patients_and_one_that_is_far():
    assert tolerance_limit(np.arange(1.0, 10), 0.1, 0.95) == (None, None)
    assert tolerance_limit(np.arange(1.0, 11), 0.1, 0.95)[1] == "tail"
    one_far = np.append(np.full(24, 10.0), 1e6)  # beyond what its tail says: the largest distance stands
    assert tolerance_limit(one_far, 0.1, 0.95) == (1e6, "tail")
    assert tolerance_limit(np.zeros(25), 0.1, 0.95)[0] == pytest.approx(0, abs=1e-9)


def two_grades(rng, shape):
    """Logarithms that are not normal: HGG lie farther from the mean and vary more."""
    return np.where(rng.random(shape) < 0.6, rng.normal(0.5, 0.3, shape), rng.normal(0, 0.15, shape))


def normal(rng, shape):
    return rng.normal(3, 0.2, shape)


def skewed(rng, shape):
    """About as skewed as the logarithms of distances of phantoms."""
    return rng.gamma(10, 0.1, shape)


def exponential(rng, shape):
    return rng.exponential(0.3, shape)


def heavy(rng, shape):
    return 0.05 * rng.standard_t(1.5, shape)


@pytest.mark.parametrize("draw", [normal, skewed, two_grades, exponential, heavy])
@pytest.mark.parametrize("patients", [10, 19, 25, 28, 29, 57, 228])
def test_nearly_every_validation_keeps_the_rate_of_distance_alarms(patients, draw):
    """1000 validations; in each the realised rate is the share of all patients beyond its limit."""
    rng, validations = np.random.default_rng(3), 1000
    everybody = np.sort(draw(rng, 200_000))
    limits = [tolerance_limit(np.exp(logs), 0.1, 0.95)[0] for logs in draw(rng, (validations, patients))]
    realised = 1 - np.searchsorted(everybody, np.log(limits), side="right") / len(everybody)
    assert (realised > 0.1).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / validations)
    assert realised.mean() > 0.002  # a limit that nobody exceeds would pass, too
    if draw is exponential and patients == 10:  # exact; with more patients the largest distance often stands
        assert (realised > 0.1).mean() == pytest.approx(0.05, abs=0.02)


def test_the_rate_holds_for_distances_in_a_feature_space():
    rng, failing = np.random.default_rng(3), []
    for _ in range(200):
        sample = features(rng, 40 + 25 + 200, 64)
        space = fit_space(sample[:40])
        limit, _ = tolerance_limit(space.distance(sample[40:65]), 0.1, 0.95)
        failing.append((space.distance(sample[65:]) > limit).mean() > 0.13)  # 200 patients: chance reaches 0.13
    assert np.mean(failing) <= 0.05
