"""How much of a calibration changes at a site."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from toolkit.errors import CohortError
from toolkit.evaluation.calibration import Calibration, sigmoid
from toolkit.evaluation.local.update import LEVEL, choose_update, cross_fitted, parted, update_calibration

PARENT = Calibration(method="platt", a=1.5, b=-0.4, threshold=0.5, rule="youden", cases={"LGG": 20, "HGG": 30})


def patients(count, shift=0.0, slope=1.0, seed=0):
    """Logits, and grades drawn from `slope` times the parent's answer plus `shift`."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0.2, 1.2, count)
    truth = sigmoid(slope * (PARENT.a * logit + PARENT.b) + shift)
    return logit, (rng.random(count) < truth).astype(np.int64)


def test_each_kind_of_change_is_found_when_there_are_patients_enough():
    assert choose_update(*patients(400), PARENT).kind == "none"
    assert choose_update(*patients(400, shift=1.2), PARENT).kind == "intercept"
    assert choose_update(*patients(800, slope=0.4), PARENT).kind == "slope"


def test_no_change_gives_the_parents_numbers():
    update = choose_update(*patients(400), PARENT)
    assert (update.a, update.b) == (PARENT.a, PARENT.b)


def test_a_calibration_that_holds_is_changed_in_at_most_the_stated_share():
    changed = sum(choose_update(*patients(80, seed=seed), PARENT).kind != "none" for seed in range(200))
    assert changed / 200 < LEVEL + 0.035  # more than two standard errors of 200 at 5 %


def test_the_tests_are_those_of_a_logistic_regression_by_another_library():
    logit, grade = patients(150, shift=0.5, slope=0.7, seed=3)
    z = PARENT.a * logit + PARENT.b

    def log_likelihood(line):
        return float((grade * line - np.logaddexp(0, line)).sum())

    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z[:, None], grade)
    free = log_likelihood(model.coef_[0, 0] * z + model.intercept_[0])
    moved = log_likelihood(z + brentq(lambda shift: (grade - sigmoid(z + shift)).sum(), -9, 9))
    kept = log_likelihood(z)
    update = choose_update(logit, grade, PARENT)
    assert update.p_update == pytest.approx(chi2.sf(2 * (free - kept), 2), rel=1e-5)
    assert update.p_slope == pytest.approx(chi2.sf(2 * (free - moved), 1), rel=1e-5)


def test_grades_that_a_threshold_parts_ask_for_no_slope():
    logit = np.concatenate([np.linspace(-3, -0.5, 12), np.linspace(0.5, 3, 12)])
    grade = np.repeat([0, 1], 12)
    assert parted(logit, grade)
    update = choose_update(logit, grade, PARENT)
    assert update.kind in ("none", "intercept")
    assert update.p_slope == 1


def test_grades_the_wrong_way_round_are_refused():
    logit, grade = patients(60)
    with pytest.raises(CohortError, match="wrong way round"):
        choose_update(-logit, grade, PARENT)


def test_what_is_learned_keeps_the_order_and_counts_the_patients():
    logit, grade = patients(120, shift=1.0)
    calibration, conformal, update = update_calibration(logit, grade, PARENT, "sensitivity=0.9")
    assert update.kind == "intercept"
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
