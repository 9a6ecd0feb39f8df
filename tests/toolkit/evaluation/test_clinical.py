"""DeLong, calibration line and decision curve against independent computations."""

import numpy as np
import pytest
from MLstatkit import Delong_test
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from toolkit.evaluation.clinical import calibration_line, decision_curve, delong


def sample(seed, lgg=15, hgg=42, scale=1.0):
    rng = np.random.default_rng(seed)
    grade = np.repeat([0, 1], [lgg, hgg])
    return grade, expit(scale * (rng.normal(0, 1.5, lgg + hgg) + 2 * grade - 1))


def structural_components(grade, score):
    """DeLong's variance as the paper writes it: every pair of patients."""
    hgg, lgg = score[grade == 1], score[grade == 0]
    wins = np.array([[1.0 if h > x else 0.5 if h == x else 0.0 for x in lgg] for h in hgg])
    area = wins.mean()
    s10 = sum((row.mean() - area) ** 2 for row in wins) / (len(hgg) - 1)
    s01 = sum((column.mean() - area) ** 2 for column in wins.T) / (len(lgg) - 1)
    return area, s10 / len(hgg) + s01 / len(lgg)


@pytest.mark.parametrize("seed", range(5))
def test_delong_is_that_of_the_paper(seed):
    grade, p = sample(seed)
    score = np.round(p, 1)  # ties
    value, low, high = delong(score[grade == 0], score[grade == 1])
    area, variance = structural_components(grade, score)
    assert value == pytest.approx(roc_auc_score(grade, score))
    assert value == pytest.approx(area)
    half = 1.959963985 * variance**0.5 / (area * (1 - area))
    assert [low, high] == pytest.approx([expit(logit(area) - half), expit(logit(area) + half)])


@pytest.mark.parametrize("seed", range(3))
def test_delong_is_that_of_another_package(seed):
    """MLstatkit, whose interval is symmetric about the AUC; ours is on the logit, so that it stays within 0 and 1."""
    grade, p = sample(seed)
    other = np.random.default_rng(seed).uniform(size=len(p))
    (low, _), _, area, _, _ = Delong_test(grade, p, other)[2:]
    half = (area - low) / (area * (1 - area))
    assert delong(p[grade == 0], p[grade == 1]) == pytest.approx(
        (area, expit(logit(area) - half), expit(logit(area) + half)), abs=1e-6
    )


def test_delong_covers_the_truth():
    """42 HGG and 15 LGG at a true AUC of 0.9213: normal with variances 1, means 2 apart."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        _, low, high = delong(rng.normal(0, 1, 15), rng.normal(2, 1, 42))
        inside += low is None or low <= 0.92135 <= high
    assert 930 <= inside <= 985


def test_delong_at_the_ends():
    assert delong(np.array([]), np.array([1.0])) == (None, None, None)
    assert delong(np.array([0.0, 1]), np.array([2.0, 3])) == (1.0, None, None)
    assert delong(np.array([0.0]), np.array([-1.0, 3])) == (0.5, None, None)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_slope_is_that_of_scikit_learn(scale):
    grade, p = sample(3, 80, 100, scale)
    (intercept, _, _), (slope, low, high) = calibration_line(grade, p)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], grade)
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    assert low < slope < high
    # With the slope held at 1, the mean probability after the shift is the share of HGG.
    assert expit(logit(p) + intercept).mean() == pytest.approx(grade.mean(), abs=1e-8)


def test_perfect_calibration_lies_inside():
    rng, inside = np.random.default_rng(1), np.zeros(2)
    for _ in range(400):
        p = expit(rng.normal(0.5, 1.5, 200))
        grade = (rng.uniform(size=200) < p).astype(np.int64)
        lines = calibration_line(grade, p)
        inside += [low <= truth <= high for (_, low, high), truth in zip(lines, (0, 1), strict=True)]
    assert (inside >= 370).all()  # of 400; 380 expected, standard deviation 4.4
    assert (inside <= 395).all()


def test_calibration_undefined():
    p = np.array([0.1, 0.2, 0.8, 0.9])
    assert calibration_line(np.ones(4, np.int64), p) == ((None,) * 3, (None,) * 3)
    intercept, slope = calibration_line(np.array([0, 0, 1, 1]), p)
    assert intercept[0] == pytest.approx(0, abs=1e-9)
    assert slope == (None, None, None)
    assert calibration_line(np.array([0, 1, 0, 1]), np.full(4, 0.3))[1] == (None, None, None)
    assert np.isfinite(calibration_line(np.array([1, 0, 0, 1]), np.array([0.0, 1, 0.2, 0.9]))[1]).all()


def test_net_benefit_by_hand():
    curve = decision_curve(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]))
    at = {round(float(t), 2): (m, e) for t, m, e in zip(*curve, strict=True)}
    # At 0.5: 0.9 is right, 0.6 is wrong, odds 1. At 0.2: three act, odds 1 / 4. At 0.75: one acts, rightly.
    assert at[0.5] == pytest.approx((0.25 - 0.25, 0.5 - 0.5))
    assert at[0.2] == pytest.approx((0.5 - 0.25 / 4, 0.5 - 0.5 / 4))
    assert at[0.75] == pytest.approx((0.25, 0.5 - 0.5 * 3))
