"""One logistic fit for calibration and clinical measures: against scikit-learn, and against the fit it replaced."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from toolkit.config import CalibrationSettings
from toolkit.evaluation.calibration_fit import fit_calibration
from toolkit.evaluation.clinical import calibration_line
from toolkit.evaluation.logistic import fit_logistic

# (seed, patients, distance of the grades, scale) -> Platt's a, b and threshold, the slope by temperature, intercept and
# slope of the calibration line with limits: what two fits by Newton's method gave before this one took their place.
BEFORE = {
    (0, 40, 1.0, 1.0): (
        (1.2576168584375442, 0.45873132373565484, 0.5487706094526421),
        1.4126989553848055,
        (0.49487679880992236, -0.21272855529722784, 1.2024821529170726),
        (1.5018339439778678, 0.409594865028617, 2.5940730229271187),
    ),
    (1, 12, 2.0, 5.0): (
        (0.2621355666799988, -0.6893140473521095, 0.5638697735871825),
        0.21478807498318306,
        (-0.3002326333599576, -1.785347913795618, 1.1848826470757028),
        (None, None, None),
    ),
    (2, 200, 0.3, 0.1): (
        (3.5857807970967857, 0.7796759595942069, 0.6867626333181669),
        1.615269379689847,
        (1.0288074258893893, 0.7086897717644136, 1.348925080014365),
        (0.36705839182301064, 0.05458956239581325, 0.679527221250208),
    ),
    (4, 60, 1.0, 300.0): (
        (0.0015151795599489737, 0.6398322434029178, 0.6143455981643676),
        0.1,
        (0.6622656221721972, 0.07783096358749841, 1.246700280756896),
        (0.4919182431121137, -0.10230853216649521, 1.0861450183907226),
    ),
}


@pytest.mark.parametrize("case", BEFORE)
def test_the_answers_are_those_of_before(case: tuple[int, int, float, float]) -> None:
    seed, count, distance, scale = case
    grade = (np.arange(count) % 3 > 0).astype(int)
    z = np.random.default_rng(seed).normal(0, 1, count) + distance * grade - 0.4
    platt, temperature, intercept, slope = BEFORE[case]
    found = fit_calibration(scale * z, grade, CalibrationSettings())
    assert (found.a, found.b, found.threshold) == pytest.approx(platt, abs=1e-6)
    found = fit_calibration(scale * z, grade, CalibrationSettings(method="temperature"))
    assert found.a == pytest.approx(temperature, abs=1e-6)
    lines = calibration_line(grade, 1 / (1 + np.exp(-z)))
    for line, before in zip(lines, (intercept, slope), strict=True):
        assert line == (before if None in before else pytest.approx(before, abs=1e-6))


def test_weights_and_covariance_by_hand() -> None:
    """A constant alone: the log odds, whose variance is 1 / (n p q)."""
    target = np.array([1.0] * 3 + [0.0] * 9)
    fit = fit_logistic(np.ones((12, 1)), target)
    assert fit.weights == pytest.approx([np.log(3 / 9)])
    assert fit.covariance == pytest.approx(np.array([[1 / (12 * 0.25 * 0.75)]]))
    fit = fit_logistic(np.ones((12, 1)), target, np.full(12, 2.0))
    assert fit.weights == pytest.approx([np.log(3 / 9) - 2])


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = np.column_stack([rng.normal(size=(80, 2)), np.ones(80)])
    target = (columns @ [1.0, -2.0, 0.5] + rng.logistic(size=80) > 0).astype(float)
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10000).fit(columns[:, :2], target)
    wanted = [*model.coef_[0], model.intercept_[0]]
    assert fit_logistic(columns, target).weights == pytest.approx(wanted, abs=1e-4)
