"""How much of a calibration changes at a site."""

import numpy as np
import pytest

from toolkit.errors import CohortError
from toolkit.evaluation.calibration import Calibration, sigmoid
from toolkit.evaluation.local.update import SHIFT, SLOPE, cross_fitted, fit_update, update_calibration

PARENT = Calibration(method="platt", a=1.5, b=-0.4, threshold=0.5, rule="youden", cases={"LGG": 20, "HGG": 30})


def patients(count, shift=0.0, slope=1.0, seed=0):
    """Logits, and grades drawn from `slope` times the parent's answer plus `shift`."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0.2, 1.2, count)
    truth = sigmoid(slope * (PARENT.a * logit + PARENT.b) + shift)
    return logit, (rng.random(count) < truth).astype(np.int64)


def loss(update, logit, grade):
    """Mean logistic loss of patients whom nothing was learned from."""
    z = update.a * logit + update.b
    return float(np.mean(np.logaddexp(0, z) - grade * z))


@pytest.mark.parametrize(("shift", "slope"), [(0.0, 1.0), (1.2, 1.0), (0.0, 0.4), (-0.8, 1.6)])
def test_many_patients_show_the_truth(shift, slope):
    logit, grade = patients(20_000, shift, slope)
    update = fit_update(logit, grade, PARENT)
    assert update.a == pytest.approx(slope * PARENT.a, abs=0.1)
    assert update.b == pytest.approx(slope * PARENT.b + shift, abs=0.1)
    assert update.slope == pytest.approx(slope, abs=0.07)


def test_few_patients_bring_much_where_something_changed_and_cost_little_where_nothing_did():
    gained, cost = [], []
    for seed in range(60):
        for shift, found in ((1.2, gained), (0.0, cost)):
            fresh = patients(4000, shift, seed=1000 + seed)
            found.append(loss(fit_update(*patients(30, shift, seed=seed), PARENT), *fresh) - loss(PARENT, *fresh))
    best = np.mean([loss(PARENT, *patients(4000, 1.2, seed=s)) - loss_of_truth(1.2, s) for s in range(1000, 1060)])
    assert np.mean(gained) < -0.6 * best
    assert np.mean(cost) < 0.2 * best


def loss_of_truth(shift, seed):
    logit, grade = patients(4000, shift, seed=seed)
    z = PARENT.a * logit + PARENT.b + shift
    return float(np.mean(np.logaddexp(0, z) - grade * z))


def test_the_fit_is_where_the_posterior_is_highest():
    logit, grade = patients(150, shift=0.5, slope=0.7, seed=3)
    update = fit_update(logit, grade, PARENT)
    z = PARENT.a * logit + PARENT.b
    missing = sigmoid(update.a * logit + update.b) - grade
    assert missing.sum() + update.shift / SHIFT**2 == pytest.approx(0, abs=1e-6)
    assert (missing * (z - z.mean())).sum() + (update.slope - 1) / SLOPE**2 == pytest.approx(0, abs=1e-6)


def test_grades_that_a_threshold_parts_get_a_finite_slope():
    logit = np.concatenate([np.linspace(-3, -0.5, 12), np.linspace(0.5, 3, 12)])
    update = fit_update(logit, np.repeat([0, 1], 12), PARENT)
    assert 1 < update.slope < 3


def test_grades_the_wrong_way_round_are_refused():
    logit, grade = patients(60)
    with pytest.raises(CohortError, match="wrong way round"):
        fit_update(-logit, grade, PARENT)


def test_what_is_learned_keeps_the_order_and_counts_the_patients():
    logit, grade = patients(120, shift=1.0)
    calibration, conformal, update = update_calibration(logit, grade, PARENT, "sensitivity=0.9")
    assert 0.4 < update.shift < 1.3
    assert calibration.cases == {"LGG": int((grade == 0).sum()), "HGG": int((grade == 1).sum())}
    assert conformal.cases == calibration.cases
    probability = calibration.probability(logit)
    assert (np.argsort(probability) == np.argsort(logit)).all()
    assert (probability[grade == 1] >= calibration.threshold).mean() >= 0.9


def test_cross_fitting_covers_what_is_promised_where_the_parent_does_not():
    covered, parents = [], []
    for seed in range(10):
        logit, grade = patients(100, shift=1.5, slope=0.6, seed=seed)
        covered.append(cross_fitted(logit, grade, PARENT, "youden").covered[grade == 1].mean())
        parents.append((PARENT.probability(logit)[grade == 1] >= 0.7).mean())
    assert np.mean(covered) > 0.87
    assert np.mean(parents) < 0.8


def test_no_patient_judges_itself():
    """The only LGG with a huge logit sets its own limit in the sample; out of it, nobody's limit reaches so far."""
    logit, grade = patients(60, seed=5)
    odd = int(np.flatnonzero(grade == 0)[0])
    logit[odd] = 8.0
    assert not cross_fitted(logit, grade, PARENT, "youden").covered[odd]
